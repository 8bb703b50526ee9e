FROM scratch
RUN <<EOF \
 && b
x \

y
EOF
