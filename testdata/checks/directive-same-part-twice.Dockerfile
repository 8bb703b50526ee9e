# check=skip=JSONArgsRecommended;skip=FromAsCasing
FROM scratch as a
CMD one
