FROM alpine
ARG UID=1000 DIR=/cache
RUN --mount=type=cache,target=${DIR},uid=${UID},gid=$UID touch $DIR/x
