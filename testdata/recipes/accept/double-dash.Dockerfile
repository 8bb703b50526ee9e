FROM alpine
RUN -- --version
COPY --link -- a b
