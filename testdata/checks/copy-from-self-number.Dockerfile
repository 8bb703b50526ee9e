FROM scratch
COPY --from=0 /x /y
