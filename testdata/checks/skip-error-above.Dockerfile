FROM scratch
# check=error=true
CMD one
