FROM --platform=${nope:-linux/amd64} scratch
