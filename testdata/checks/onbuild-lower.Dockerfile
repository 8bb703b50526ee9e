FROM scratch
onbuild from scratch
