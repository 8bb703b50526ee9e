FROM --platform=linux/amd64 scratch AS a
FROM --platform=linux/amd64 scratch AS build-amd64
FROM --platform=linux/amd64 scratch AS linux
FROM --platform=linux scratch AS b
FROM --platform=amd64 scratch AS c
FROM --platform=linux/arm64 scratch
FROM --platform=windows/amd64 scratch AS w
