ARG BASE=alpine
FROM --platform=$BUILDPLATFORM ${BASE} AS cross
ARG TARGETOS TARGETARCH
RUN echo ${TARGETOS}/${TARGETARCH}
FROM --platform=linux/arm64 alpine
COPY --from=cross /etc/os-release /
