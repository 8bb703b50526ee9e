FROM scratch
RUN --mount=type=secret,id=a --mount=type=secret,target=/b/c --mount=type=secret,id=d,env=D,required=true true
