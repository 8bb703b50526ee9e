FROM scratch
COPY --link=true a /b
COPY --link=false a /c
