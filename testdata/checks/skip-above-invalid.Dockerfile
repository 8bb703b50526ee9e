FROM scratch
# check=nonsense
CMD one
