# check=skip=JSONArgsRecommended;
FROM scratch
CMD one
