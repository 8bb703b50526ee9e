FROM scratch
EXPOSE 80/$proto
