FROM scratch
LABEL --x=y
