FROM scratch
COPY a <<A
A
