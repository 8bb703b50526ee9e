FROM scratch
RUN a \\
ENV b=c
