FROM alpine
RUN cat <<<word
RUN echo $((1<<2))
RUN it's <<EOF
CMD cat <<EOF
