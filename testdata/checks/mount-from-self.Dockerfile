FROM scratch AS a
RUN --mount=from=a,target=/x true
