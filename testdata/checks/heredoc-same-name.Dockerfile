FROM scratch
RUN <<A cat <<A
x
A
y
A
