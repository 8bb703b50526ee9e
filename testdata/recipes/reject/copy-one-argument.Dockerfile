FROM alpine
COPY only
