FROM scratch
ENV A=b
# check=skip=ConsistentInstructionCasing
env C=d
ENV E=f
