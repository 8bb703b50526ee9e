FROM scratch
RUN --mount=type=cache,target=/x,target=/y true
