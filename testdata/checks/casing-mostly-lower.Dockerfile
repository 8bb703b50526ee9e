from scratch
env a=b
ENV c=d
