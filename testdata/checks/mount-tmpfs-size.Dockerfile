FROM scratch
RUN --mount=type=tmpfs,target=/x,size=10m true
