# check=skip=JSONArgsRecommended
FROM scratch
CMD one
ENV TOKEN=1
