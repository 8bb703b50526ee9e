FROM scratch
STOPSIGNAL $none
