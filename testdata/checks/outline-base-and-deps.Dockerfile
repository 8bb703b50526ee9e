ARG g=1
ARG h=2
FROM scratch AS lib
ARG g=lib
ARG only_lib=1
FROM scratch AS base
ARG h
ARG g=base
FROM base
ARG h=top
COPY --from=lib /a /b
