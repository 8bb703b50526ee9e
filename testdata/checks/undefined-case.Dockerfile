FROM scratch
ENV Foo=1
ENV a=$foo b=$FOO
