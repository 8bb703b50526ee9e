FROM scratch
ENV ä=1
ENV b=$ä
