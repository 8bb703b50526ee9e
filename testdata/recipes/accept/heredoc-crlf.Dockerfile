FROM alpine
RUN <<EOF
echo one
EOF
RUN true
