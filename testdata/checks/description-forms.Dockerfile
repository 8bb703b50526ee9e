# check=experimental=InvalidDefinitionDescription

# a is right
FROM scratch AS a
# b
ARG b
# c: no
ARG c
# d and e
ARG d e
# e then d
ARG d e
# A is not a
FROM scratch AS a2

# nothing to describe
FROM scratch
#x close
ARG x
# check=skip=UndefinedVar
ARG y
# two lines
# z second
ARG z
# z first
# two lines
ARG z
