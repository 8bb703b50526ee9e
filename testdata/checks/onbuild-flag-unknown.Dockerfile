FROM scratch
ONBUILD COPY --chwon=1 a /b
ONBUILD COPY a
ONBUILD RUN --mount=type=cahce x
