FROM scratch
ENV a=b \

    c=d \
    # comment
    e=f
RUN a \
  
  b
