FROM scratch
# check=skip=all
ONBUILD CMD one
