FROM scratch
# a is first
ARG a=1 b=2
# d is second
ARG c=1 d=2
# e one
# f two
ARG e=1 f=2
