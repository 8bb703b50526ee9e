FROM scratch
RUN --security=sandbox true
