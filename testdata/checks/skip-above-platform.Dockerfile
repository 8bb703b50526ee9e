# comment first
# check=skip=FromPlatformFlagConstDisallowed
FROM --platform=linux/amd64 scratch AS x
FROM --platform=$TARGETPLATFORM scratch AS y
