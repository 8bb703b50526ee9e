# check=other=1
FROM scratch
