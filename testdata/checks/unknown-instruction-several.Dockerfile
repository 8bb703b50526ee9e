FROM scratch
RNU a
CMMD b
