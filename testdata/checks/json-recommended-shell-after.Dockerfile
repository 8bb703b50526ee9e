FROM scratch
CMD one
SHELL ["/bin/sh", "-c"]
ENTRYPOINT two
