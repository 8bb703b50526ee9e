FROM alpine
RUN apk add \
    # the client
    curl \
# at the margin
    git \
    && true
