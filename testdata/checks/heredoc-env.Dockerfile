FROM scratch
ENV a=<<EOF
