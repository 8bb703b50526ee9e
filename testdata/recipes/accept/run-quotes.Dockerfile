FROM alpine
RUN echo "a  b" 'c' \"d\" $E "${F:-g}" `date`
RUN printf '%s\n' "it's"
