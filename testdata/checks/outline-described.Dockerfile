# check=experimental=InvalidDefinitionDescription

# VERSION is what is built
ARG VERSION=1
# BASE names the base
ARG BASE=scratch
ARG UNUSED=x
# build makes it
FROM $BASE AS build
# VERSION again
ARG VERSION
# FLAG is local
ARG FLAG=$VERSION
RUN --mount=type=secret,id=s --mount=type=ssh true
# app is all
FROM build AS app
ARG LAST=${FLAG}x
