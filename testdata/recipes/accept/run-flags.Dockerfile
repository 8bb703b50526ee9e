# syntax=docker/dockerfile:1
FROM alpine
RUN --network=none --security=sandbox echo one
RUN --mount=type=cache,target=/root/.cache,sharing=locked,mode=0755,uid=1000,gid=1000 --mount=type=bind,source=.,target=/src,rw make
RUN --mount=type=secret,id=token,env=TOKEN,required --mount=type=ssh --mount=type=tmpfs,target=/tmp,size=64m ./install
