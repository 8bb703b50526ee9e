FROM scratch
ENV ports="80 81/TCP"
EXPOSE $ports "82 83"
