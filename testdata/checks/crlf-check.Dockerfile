# check=skip=UndefinedVar
FROM scratch
CMD one
ENV A=$x \
  B=c
