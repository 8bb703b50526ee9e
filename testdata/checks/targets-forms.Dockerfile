# one
# a is the first
FROM scratch AS a
# b is the second

FROM --platform=linux/amd64 scratch AS b
# c comes next
FROM a AS c
FROM c
