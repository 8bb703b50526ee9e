FROM scratch
# check=skip=MultipleInstructionsDisallowed
CMD ["a"]
CMD ["b"]
