FROM scratch AS a
CMD one
ENTRYPOINT two
FROM a
CMD ["x"]
HEALTHCHECK CMD three
RUN four
