FROM scratch
RUN --mount=type=ssh --mount=type=ssh,id=b,required true
