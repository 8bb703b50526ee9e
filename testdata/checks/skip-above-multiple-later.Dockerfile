FROM scratch
CMD ["a"]
# check=skip=MultipleInstructionsDisallowed
CMD ["b"]
