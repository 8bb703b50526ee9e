FROM scratch
ARG a=b
ARG $a=c
