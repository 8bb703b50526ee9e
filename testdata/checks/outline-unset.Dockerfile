ARG none
FROM scratch
ARG none
ARG empty=
