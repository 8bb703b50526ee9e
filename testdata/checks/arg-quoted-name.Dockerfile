FROM scratch
ARG "a b"=c
