FROM scratch
RUN --mount=type=bind,source=$a,target=/b true
RUN --mount=type=cache,id=$c,target=/d true
