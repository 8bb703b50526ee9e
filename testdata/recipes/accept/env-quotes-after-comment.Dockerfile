FROM alpine
ENV GREETING="hello" \
    # it's "quoted" here
    FAREWELL="bye"
RUN echo $GREETING
