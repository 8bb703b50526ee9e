FROM scratch
RUN cat << EOF
x
EOF
RUN <<	EOF
y
EOF
COPY << EOF /x
z
EOF
ENV a=b
