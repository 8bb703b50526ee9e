FROM scratch
# check=skip=CopyIgnoredFile
COPY a.txt /
COPY a.txt /
