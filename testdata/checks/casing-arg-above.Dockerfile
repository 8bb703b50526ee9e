arg a
FROM scratch
ENV b=c
