FROM scratch
ARG a
ENV b=$a c=$PATH d=$HOME e=$TARGETARCH
