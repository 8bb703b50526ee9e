FROM scratch
ENV A=$x \
# check=skip=UndefinedVar
 B=$y
