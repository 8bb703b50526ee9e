ARG a=1
ARG b=$a
ARG c=$b
ARG d=$c
FROM scratch AS x
ARG c
FROM ${d:+scratch}
COPY --from=x /y /z
