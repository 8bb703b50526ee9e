FROM alpine
RUN cat <<EOF > /etc/motd
hello
EOF
RUN true
