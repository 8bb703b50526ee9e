FROM scratch AS a
SHELL ["/bin/sh", "-c"]
FROM a
CMD one
