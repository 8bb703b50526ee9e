FROM alpine
RUN cat <<ONE 3<<TWO
1
ONE
2
TWO
RUN true
