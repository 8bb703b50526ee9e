FROM scratch
RUN --mount=type=$e,target=/f true
