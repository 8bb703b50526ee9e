# syntax=docker/dockerfile:1.7
# escape=\
# check=skip=JSONArgsRecommended;error=false

FROM alpine
CMD echo hi
