FROM --platform=$TARGETPLATFROM scratch
