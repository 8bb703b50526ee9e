# check=error=true
FROM scratch
CMD one
