FROM scratch
RUN a \
# b
