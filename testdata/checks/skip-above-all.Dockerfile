FROM scratch
# check=skip=all
CMD $x one
