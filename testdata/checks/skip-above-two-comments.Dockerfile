FROM scratch
# check=skip=UndefinedVar
# check=skip=JSONArgsRecommended
CMD one
