FROM scratch
ENTRYPOINT ["a",]
