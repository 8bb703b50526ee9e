FROM alpine
RUN --network=none \
    <<EOF
echo one \
  two
EOF
RUN true
