ARG a=1
ARG a=2
FROM scratch
ARG a
ARG a=3
