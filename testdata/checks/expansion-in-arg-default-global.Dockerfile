ARG a=1
ARG b=${a}2
ARG c=${nope}3
FROM scratch
ARG c
ENV d=$c
