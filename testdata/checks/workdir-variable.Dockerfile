FROM scratch
ARG d=/x
WORKDIR $d
