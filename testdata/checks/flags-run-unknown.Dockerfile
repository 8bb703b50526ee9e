FROM scratch
RUN --mout=type=cache true
