FROM alpine
COPY --chown=1000:1000 --chmod=u=rwX,go=rX --link --parents --exclude=*.o --exclude=**/tmp a b /dst/
COPY --from=alpine:3.20 --link=false /etc/passwd /
COPY --from=0 / /x
