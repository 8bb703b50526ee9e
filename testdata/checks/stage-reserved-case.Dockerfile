FROM scratch AS Scratch
FROM scratch AS Context
