FROM scratch
SHELL ["/bin/sh", "-c"]
CMD one
ENTRYPOINT two
