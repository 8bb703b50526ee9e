FROM --platform=$TARGETPLATFORM scratch AS a
FROM --platform=${TARGETPLATFORM} scratch AS b
FROM --platform=$TARGETOS/$TARGETARCH scratch AS c
FROM --platform=$BUILDPLATFORM scratch AS d
FROM --platform=${TARGETPLATFORM:-linux/amd64} scratch AS e
FROM --platform="$TARGETPLATFORM" scratch AS f
FROM --platform=linux/$TARGETARCH scratch AS g
