FROM alpine
RUN <<EOF
RUN this is not an instruction
COPY neither
FROM here
EOF
CMD true
