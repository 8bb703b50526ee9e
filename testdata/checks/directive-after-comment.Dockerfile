# a comment
# check=skip=JSONArgsRecommended
FROM scratch
CMD one
