FROM scratch
RUN echo "<<EOF"
ENV a=b
