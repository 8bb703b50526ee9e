ARG a
FROM ${a:-scratch}
