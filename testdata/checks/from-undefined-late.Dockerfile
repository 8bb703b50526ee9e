FROM ${a:-scratch} AS x
ARG a
FROM ${a:-scratch}
