# check=error=T
FROM scratch
CMD one
