FROM alpine
COPY ["with blank", "/dst dir/"]
ADD ["a", "b", "/c/"]
VOLUME ["/data", "/more"]
