ARG g=1
FROM scratch
ENV a=$g
