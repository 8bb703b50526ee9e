# check=error=yes
FROM scratch
CMD one
