# first
# check=skip=FromAsCasing
FROM scratch as a
# check=skip=StageNameCasing
FROM scratch AS Bee
