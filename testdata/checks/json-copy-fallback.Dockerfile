FROM scratch
COPY ['a', "/c/"]
