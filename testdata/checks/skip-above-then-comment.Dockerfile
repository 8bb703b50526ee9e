FROM scratch
# check=skip=JSONArgsRecommended
# some words
CMD one
