FROM scratch AS a
FROM scratch
ARG s=a
COPY --from=$s /x /y
