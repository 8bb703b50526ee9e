FROM scratch AS a
FROM scratch
COPY --from=a a.txt /
COPY a.tx[t] /
