FROM scratch
# check=skip=UndefinedVar
CMD one
