FROM alpine
ONBUILD COPY . /app
ONBUILD RUN --mount=type=cache,target=/c make \
    all
ONBUILD ENV a=b
onbuild user nobody
