FROM scratch
#   check  =  skip=JSONArgsRecommended
CMD one
