FROM scratch
ENV a=1 b=$a
ARG c=1 d=$c
