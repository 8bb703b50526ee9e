# check=experimental=InvalidDefinitionDescription
# wrong
FROM scratch AS a
# also wrong
ARG x
