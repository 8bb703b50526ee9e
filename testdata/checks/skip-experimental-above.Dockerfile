# first comment

# check=experimental=InvalidDefinitionDescription
# wrong words
FROM scratch AS a
