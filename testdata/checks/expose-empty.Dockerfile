FROM scratch
EXPOSE $none
