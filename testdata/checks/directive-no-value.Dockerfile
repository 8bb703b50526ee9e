# check=skip
FROM scratch
CMD one
