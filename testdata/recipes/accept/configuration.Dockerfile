FROM alpine
WORKDIR /a dir
USER app:staff
EXPOSE 80 443/tcp 53/udp 8000-8010
VOLUME /data /more
STOPSIGNAL SIGTERM
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
MAINTAINER Somebody <somebody@example.com>
CMD ["a", "b"]
ENTRYPOINT exec top -b
