FROM scratch
RUN ["<<A"]
