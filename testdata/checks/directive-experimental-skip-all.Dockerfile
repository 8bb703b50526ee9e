# check=skip=all;experimental=InvalidDefinitionDescription
# wrong
FROM scratch AS a
CMD one
