FROM scratch
VOLUME ["/a", "/b"]
VOLUME ['/c']
VOLUME /d /e
