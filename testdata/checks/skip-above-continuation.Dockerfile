FROM scratch
# check=skip=NoEmptyContinuation
ENV A=b \

 C=d
