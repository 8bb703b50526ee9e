FROM scratch
MAINTAINER a b
maintainer c
