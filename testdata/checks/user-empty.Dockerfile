FROM scratch
USER $none
