FROM scratch AS a
ONBUILD COPY --from=7 /x /y
FROM a
