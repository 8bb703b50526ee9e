FROM alpine
banana split
