FROM scratch
RUN --mount=type=cache,target=/a --mount=type=cache,id=b,target=/c true
WORKDIR /w
RUN --mount=type=cache,target=d true
