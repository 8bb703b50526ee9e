FROM scratch
# check=skip=MaintainerDeprecated
MAINTAINER me
MAINTAINER you
