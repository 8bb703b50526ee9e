ARG TAG=3
ARG DIGEST
FROM alpine:${TAG:-latest}${DIGEST:+@sha256:}${DIGEST}
RUN true
