FROM scratch
ENV a=$x b=$x
LABEL c=$x
