FROM alpine
RUN --network=nome true
