FROM scratch
COPY --CHOWN=1 a /b
