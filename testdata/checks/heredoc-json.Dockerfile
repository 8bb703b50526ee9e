FROM scratch
COPY ["<<A", "/x"]
