ARG a=1
ARG a=${a}2
FROM scratch
ARG a
