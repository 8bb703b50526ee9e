FROM \
  scratch \
  AS a
ARG x
