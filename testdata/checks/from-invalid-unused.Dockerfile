FROM UPPER:x AS unused
FROM scratch
