ARG p
FROM --platform=$p scratch
