FROM scratch
ONBUILD run echo
