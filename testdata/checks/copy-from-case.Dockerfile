FROM scratch AS Base
FROM scratch
COPY --from=BASE /x /y
