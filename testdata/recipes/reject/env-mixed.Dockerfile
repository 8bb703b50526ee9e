FROM alpine
ENV a=b c d=e
