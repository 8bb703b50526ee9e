# other=1
# check=skip=JSONArgsRecommended
FROM scratch
CMD one
