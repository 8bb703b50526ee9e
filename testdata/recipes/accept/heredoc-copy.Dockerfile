FROM alpine
COPY <<robots.txt <<"humans.txt" /usr/share/nginx/html/
User-agent: *
robots.txt
hello $YOU
humans.txt
ADD <<EOF /etc/config
key=${VALUE:-x}
EOF
RUN true
