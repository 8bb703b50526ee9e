FROM scratch AS src
FROM scratch AS a
ONBUILD COPY --from=src /x /y
FROM a
