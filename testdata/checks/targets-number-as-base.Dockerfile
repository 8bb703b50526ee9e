FROM scratch
FROM scratch AS last
