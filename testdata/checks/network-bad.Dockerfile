FROM scratch
RUN --network=hostt true
