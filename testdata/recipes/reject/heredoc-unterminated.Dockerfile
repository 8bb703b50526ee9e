FROM alpine
RUN cat <<ONE <<TWO
1
ONE
2
