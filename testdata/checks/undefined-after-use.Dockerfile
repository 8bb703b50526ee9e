FROM scratch
ENV a=$b
ARG b=1
ENV b=2 c=$b
