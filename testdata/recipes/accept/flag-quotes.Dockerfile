FROM alpine
COPY --chown="app:staff" a b
RUN --mount=type=cache,"target=/a b" true
