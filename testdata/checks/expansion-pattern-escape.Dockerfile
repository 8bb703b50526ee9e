FROM scratch
ENV b=x
ENV a=${b#\x}
