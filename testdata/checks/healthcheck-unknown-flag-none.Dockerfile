FROM scratch
HEALTHCHECK --intervall=1s NONE
