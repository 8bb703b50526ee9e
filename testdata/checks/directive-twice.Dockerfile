# check=skip=JSONArgsRecommended
# check=skip=FromAsCasing
FROM scratch as a
CMD one
