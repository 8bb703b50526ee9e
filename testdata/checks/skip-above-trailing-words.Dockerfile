FROM scratch
# check=skip=JSONArgsRecommended because it is fine
CMD one
