FROM scratch
ENV a=$HTTP_PROXY b=$http_proxy c=$no_proxy
ARG HTTPS_PROXY
ENV d=$HTTPS_PROXY
