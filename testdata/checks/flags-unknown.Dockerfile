FROM scratch
COPY --chwon=1 a /b
