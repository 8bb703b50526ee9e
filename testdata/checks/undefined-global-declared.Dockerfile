ARG g=1
FROM scratch AS a
ARG g
ENV a=$g
FROM a
ENV b=$g
FROM scratch
ENV c=$g
