FROM scratch
ENV a=1
ARG a=2
ENV b=$a
