FROM scratch
# check=skip=WorkdirRelativePath
WORKDIR a
WORKDIR b
