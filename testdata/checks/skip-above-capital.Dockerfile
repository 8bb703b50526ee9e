FROM scratch
# Check=skip=JSONArgsRecommended
CMD one
