# first
# check=skip=ReservedStageName
FROM scratch AS context
# check=skip=DuplicateStageName
FROM scratch AS context
