#!/usr/bin/env strata
# syntax=example.com/frontend
FROM alpine
