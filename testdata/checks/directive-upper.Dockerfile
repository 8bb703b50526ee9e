# CHECK=skip=JSONArgsRecommended
FROM scratch
CMD one
