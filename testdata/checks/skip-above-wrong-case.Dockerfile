FROM scratch
# check=skip=jsonargsrecommended
CMD one
