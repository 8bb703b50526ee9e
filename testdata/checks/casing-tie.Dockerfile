from scratch
ENV a=b
