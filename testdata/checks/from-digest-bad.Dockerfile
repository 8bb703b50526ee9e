FROM scratch@sha256:abc
