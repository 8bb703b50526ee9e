FROM scratch
ENV a b c
ENV d=e
LABEL f g
ENV h  i=j
