FROM scratch
CMD <<EOF
ENV a=b
