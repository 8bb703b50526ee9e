ENV a=b
FROM scratch
