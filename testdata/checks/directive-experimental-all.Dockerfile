# check=experimental=all
# wrong
FROM scratch AS a
