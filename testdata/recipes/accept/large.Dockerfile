# syntax=docker/dockerfile:1
# check=skip=SecretsUsedInArgOrEnv

# One image of a service with a web front end, its tools and its tests, as large projects write them.
ARG DEBIAN_VERSION=12.5
ARG NODE_VERSION=20.11.1
ARG GO_VERSION=1.22
ARG PYTHON_VERSION=3.12
ARG REGISTRY=registry.example.com/library

# base: what every stage stands on
FROM ${REGISTRY}/debian:${DEBIAN_VERSION} AS base
ENV LANG=C.UTF-8 \
    LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive \
    PATH=/opt/app/bin:$PATH
SHELL ["/bin/bash", "-euxo", "pipefail", "-c"]
RUN apt-get update \
    # Only what is needed.
    && apt-get install --yes --no-install-recommends \
        ca-certificates \
        curl \
        git \
        gnupg \
        jq \
        less \
        locales \
        make \
        openssh-client \
        procps \
        rsync \
        tini \
        tzdata \
        unzip \
        xz-utils \
        zip \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 app && useradd --uid 1000 --gid app --create-home app
WORKDIR /srv/app

# accounts-build: compiles the accounts service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS accounts-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.0.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=accounts \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/accounts/go.mod services/accounts/go.sum ./
RUN go mod download
COPY --chmod=0644 services/accounts/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM accounts-build AS accounts-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# billing-build: compiles the billing service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS billing-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.1.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=billing \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/billing/go.mod services/billing/go.sum ./
RUN go mod download
COPY --chmod=0644 services/billing/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM billing-build AS billing-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# catalog-build: compiles the catalog service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS catalog-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.2.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=catalog \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/catalog/go.mod services/catalog/go.sum ./
RUN go mod download
COPY --chmod=0644 services/catalog/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM catalog-build AS catalog-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# delivery-build: compiles the delivery service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS delivery-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.3.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=delivery \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/delivery/go.mod services/delivery/go.sum ./
RUN go mod download
COPY --chmod=0644 services/delivery/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM delivery-build AS delivery-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# events-build: compiles the events service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS events-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.4.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=events \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/events/go.mod services/events/go.sum ./
RUN go mod download
COPY --chmod=0644 services/events/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM events-build AS events-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# files-build: compiles the files service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS files-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.5.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=files \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/files/go.mod services/files/go.sum ./
RUN go mod download
COPY --chmod=0644 services/files/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM files-build AS files-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# gateway-build: compiles the gateway service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS gateway-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.6.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=gateway \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/gateway/go.mod services/gateway/go.sum ./
RUN go mod download
COPY --chmod=0644 services/gateway/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM gateway-build AS gateway-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# history-build: compiles the history service
FROM --platform=$BUILDPLATFORM ${REGISTRY}/golang:${GO_VERSION} AS history-build
ARG TARGETOS TARGETARCH
ARG VERSION=0.7.0
ARG GOFLAGS=-trimpath
ENV CGO_ENABLED=0 \
    GOOS=${TARGETOS} \
    GOARCH=${TARGETARCH} \
    SERVICE=history \
    VERSION=${VERSION:-dev}
WORKDIR /go/src/$SERVICE
COPY services/history/go.mod services/history/go.sum ./
RUN go mod download
COPY --chmod=0644 services/history/ ./
COPY lib/ /go/src/lib/
RUN <<EOF
set -eux
go vet ./...
go build -ldflags "-s -w -X main.version=${VERSION}" -o "/out/${SERVICE}" ./cmd/server
"/out/${SERVICE}" --version
EOF

FROM history-build AS history-test
RUN go test -race -count=1 \
    -coverprofile=/out/cover.out \
    ./... \
    | tee /out/test.log

# web: the front end
FROM ${REGISTRY}/node:${NODE_VERSION} AS web
WORKDIR /web
ENV NODE_ENV=production npm_config_update_notifier=false
COPY web/package.json web/package-lock.json ./
RUN npm ci --include=dev
COPY web/tsconfig*.json web/vite.config.ts ./
COPY ["web/src", "web/public", "./src/"]
ARG API_URL=https://api.example.com
ARG ANALYTICS
RUN API_URL="$API_URL" npm run build \
  && npm run check

# tools: scripts for operators
FROM ${REGISTRY}/python:${PYTHON_VERSION} AS tools
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 VIRTUAL_ENV=/opt/tools
ENV PATH="$VIRTUAL_ENV/bin:$PATH"
COPY tools/requirements*.txt /tmp/
RUN python -m venv "$VIRTUAL_ENV" && pip install -r /tmp/requirements.txt
COPY --chown=1000:1000 tools/ /opt/tools/src/
COPY --chmod=0755 tools/bin/task-00.sh /usr/local/bin/task-00
COPY --chmod=0755 tools/bin/task-01.sh /usr/local/bin/task-01
COPY --chmod=0755 tools/bin/task-02.sh /usr/local/bin/task-02
COPY --chmod=0755 tools/bin/task-03.sh /usr/local/bin/task-03
COPY --chmod=0755 tools/bin/task-04.sh /usr/local/bin/task-04
COPY --chmod=0755 tools/bin/task-05.sh /usr/local/bin/task-05
COPY --chmod=0755 tools/bin/task-06.sh /usr/local/bin/task-06
COPY --chmod=0755 tools/bin/task-07.sh /usr/local/bin/task-07
COPY --chmod=0755 tools/bin/task-08.sh /usr/local/bin/task-08
COPY --chmod=0755 tools/bin/task-09.sh /usr/local/bin/task-09
COPY --chmod=0755 tools/bin/task-10.sh /usr/local/bin/task-10
COPY --chmod=0755 tools/bin/task-11.sh /usr/local/bin/task-11
COPY --chmod=0755 tools/bin/task-12.sh /usr/local/bin/task-12
COPY --chmod=0755 tools/bin/task-13.sh /usr/local/bin/task-13

# release: what is shipped
FROM base AS release
ARG VERSION=dev
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="Service suite" \
      org.opencontainers.image.description="Everything in one image, for small sites" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION:-unknown}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://example.com/suite.git"
COPY --from=accounts-build /out/accounts /opt/app/bin/accounts
COPY --from=billing-build /out/billing /opt/app/bin/billing
COPY --from=catalog-build /out/catalog /opt/app/bin/catalog
COPY --from=delivery-build /out/delivery /opt/app/bin/delivery
COPY --from=events-build /out/events /opt/app/bin/events
COPY --from=files-build /out/files /opt/app/bin/files
COPY --from=gateway-build /out/gateway /opt/app/bin/gateway
COPY --from=history-build /out/history /opt/app/bin/history
COPY --from=web --chown=app:app /web/dist/ /srv/app/public/
COPY --from=tools /opt/tools /opt/tools
COPY <<EOF /etc/app/app.toml
[server]
version = "${VERSION}"
root = "/srv/app/public"
workers = 4
EOF
COPY <<'EOF' /usr/local/bin/entrypoint
#!/bin/bash
set -eu
service=${1:?name a service}
shift
exec "/opt/app/bin/$service" --config /etc/app/app.toml "$@"
EOF
RUN chmod 0755 /usr/local/bin/entrypoint
COPY config/routes/00.conf /etc/app/routes.d/
COPY config/routes/01.conf /etc/app/routes.d/
COPY config/routes/02.conf /etc/app/routes.d/
COPY config/routes/03.conf /etc/app/routes.d/
COPY config/routes/04.conf /etc/app/routes.d/
COPY config/routes/05.conf /etc/app/routes.d/
COPY config/routes/06.conf /etc/app/routes.d/
COPY config/routes/07.conf /etc/app/routes.d/
COPY config/routes/08.conf /etc/app/routes.d/
COPY config/routes/09.conf /etc/app/routes.d/
COPY config/routes/10.conf /etc/app/routes.d/
COPY config/routes/11.conf /etc/app/routes.d/
COPY config/routes/12.conf /etc/app/routes.d/
COPY config/routes/13.conf /etc/app/routes.d/
COPY config/routes/14.conf /etc/app/routes.d/
COPY config/routes/15.conf /etc/app/routes.d/
COPY config/routes/16.conf /etc/app/routes.d/
COPY config/routes/17.conf /etc/app/routes.d/
COPY config/routes/18.conf /etc/app/routes.d/
COPY config/routes/19.conf /etc/app/routes.d/
COPY config/routes/20.conf /etc/app/routes.d/
COPY config/routes/21.conf /etc/app/routes.d/
COPY config/routes/22.conf /etc/app/routes.d/
COPY config/routes/23.conf /etc/app/routes.d/
COPY config/routes/24.conf /etc/app/routes.d/
COPY config/routes/25.conf /etc/app/routes.d/
COPY config/routes/26.conf /etc/app/routes.d/
COPY config/routes/27.conf /etc/app/routes.d/
COPY config/routes/28.conf /etc/app/routes.d/
COPY config/routes/29.conf /etc/app/routes.d/
COPY config/routes/30.conf /etc/app/routes.d/
COPY config/routes/31.conf /etc/app/routes.d/
COPY config/routes/32.conf /etc/app/routes.d/
COPY config/routes/33.conf /etc/app/routes.d/
COPY config/routes/34.conf /etc/app/routes.d/
COPY config/routes/35.conf /etc/app/routes.d/
COPY config/routes/36.conf /etc/app/routes.d/
COPY config/routes/37.conf /etc/app/routes.d/
COPY config/limits/00.conf /etc/app/limits.d/
COPY config/limits/01.conf /etc/app/limits.d/
COPY config/limits/02.conf /etc/app/limits.d/
COPY config/limits/03.conf /etc/app/limits.d/
COPY config/limits/04.conf /etc/app/limits.d/
COPY config/limits/05.conf /etc/app/limits.d/
COPY config/limits/06.conf /etc/app/limits.d/
COPY config/limits/07.conf /etc/app/limits.d/
COPY config/limits/08.conf /etc/app/limits.d/
COPY config/limits/09.conf /etc/app/limits.d/
COPY config/limits/10.conf /etc/app/limits.d/
COPY config/limits/11.conf /etc/app/limits.d/
COPY config/limits/12.conf /etc/app/limits.d/
COPY config/limits/13.conf /etc/app/limits.d/
COPY config/limits/14.conf /etc/app/limits.d/
COPY config/limits/15.conf /etc/app/limits.d/
COPY config/limits/16.conf /etc/app/limits.d/
COPY config/limits/17.conf /etc/app/limits.d/
COPY config/limits/18.conf /etc/app/limits.d/
COPY config/limits/19.conf /etc/app/limits.d/
COPY config/limits/20.conf /etc/app/limits.d/
COPY config/limits/21.conf /etc/app/limits.d/
COPY config/limits/22.conf /etc/app/limits.d/
COPY config/limits/23.conf /etc/app/limits.d/
COPY config/limits/24.conf /etc/app/limits.d/
COPY config/limits/25.conf /etc/app/limits.d/
COPY config/limits/26.conf /etc/app/limits.d/
COPY config/limits/27.conf /etc/app/limits.d/
COPY config/limits/28.conf /etc/app/limits.d/
COPY config/limits/29.conf /etc/app/limits.d/
COPY config/limits/30.conf /etc/app/limits.d/
COPY config/limits/31.conf /etc/app/limits.d/
COPY config/limits/32.conf /etc/app/limits.d/
COPY config/limits/33.conf /etc/app/limits.d/
COPY config/limits/34.conf /etc/app/limits.d/
COPY config/limits/35.conf /etc/app/limits.d/
COPY config/limits/36.conf /etc/app/limits.d/
COPY config/limits/37.conf /etc/app/limits.d/
COPY config/jobs/00.conf /etc/app/jobs.d/
COPY config/jobs/01.conf /etc/app/jobs.d/
COPY config/jobs/02.conf /etc/app/jobs.d/
COPY config/jobs/03.conf /etc/app/jobs.d/
COPY config/jobs/04.conf /etc/app/jobs.d/
COPY config/jobs/05.conf /etc/app/jobs.d/
COPY config/jobs/06.conf /etc/app/jobs.d/
COPY config/jobs/07.conf /etc/app/jobs.d/
COPY config/jobs/08.conf /etc/app/jobs.d/
COPY config/jobs/09.conf /etc/app/jobs.d/
COPY config/jobs/10.conf /etc/app/jobs.d/
COPY config/jobs/11.conf /etc/app/jobs.d/
COPY config/jobs/12.conf /etc/app/jobs.d/
COPY config/jobs/13.conf /etc/app/jobs.d/
COPY config/jobs/14.conf /etc/app/jobs.d/
COPY config/jobs/15.conf /etc/app/jobs.d/
COPY config/jobs/16.conf /etc/app/jobs.d/
COPY config/jobs/17.conf /etc/app/jobs.d/
COPY config/jobs/18.conf /etc/app/jobs.d/
COPY config/jobs/19.conf /etc/app/jobs.d/
COPY config/jobs/20.conf /etc/app/jobs.d/
COPY config/jobs/21.conf /etc/app/jobs.d/
COPY config/jobs/22.conf /etc/app/jobs.d/
COPY config/jobs/23.conf /etc/app/jobs.d/
COPY config/jobs/24.conf /etc/app/jobs.d/
COPY config/jobs/25.conf /etc/app/jobs.d/
COPY config/jobs/26.conf /etc/app/jobs.d/
COPY config/jobs/27.conf /etc/app/jobs.d/
COPY config/jobs/28.conf /etc/app/jobs.d/
COPY config/jobs/29.conf /etc/app/jobs.d/
COPY config/jobs/30.conf /etc/app/jobs.d/
COPY config/jobs/31.conf /etc/app/jobs.d/
COPY config/jobs/32.conf /etc/app/jobs.d/
COPY config/jobs/33.conf /etc/app/jobs.d/
COPY config/jobs/34.conf /etc/app/jobs.d/
COPY config/jobs/35.conf /etc/app/jobs.d/
ENV ACCOUNTS_PORT=8000 ACCOUNTS_URL=http://localhost:${ACCOUNTS_PORT:-8000}/
EXPOSE 8000/tcp
ENV BILLING_PORT=8001 BILLING_URL=http://localhost:${BILLING_PORT:-8001}/
EXPOSE 8001/tcp
ENV CATALOG_PORT=8002 CATALOG_URL=http://localhost:${CATALOG_PORT:-8002}/
EXPOSE 8002/tcp
ENV DELIVERY_PORT=8003 DELIVERY_URL=http://localhost:${DELIVERY_PORT:-8003}/
EXPOSE 8003/tcp
ENV EVENTS_PORT=8004 EVENTS_URL=http://localhost:${EVENTS_PORT:-8004}/
EXPOSE 8004/tcp
ENV FILES_PORT=8005 FILES_URL=http://localhost:${FILES_PORT:-8005}/
EXPOSE 8005/tcp
ENV GATEWAY_PORT=8006 GATEWAY_URL=http://localhost:${GATEWAY_PORT:-8006}/
EXPOSE 8006/tcp
ENV HISTORY_PORT=8007 HISTORY_URL=http://localhost:${HISTORY_PORT:-8007}/
EXPOSE 8007/tcp
VOLUME ["/var/lib/app", "/var/log/app"]
USER app:app
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD curl --fail --silent http://localhost:8006/health || exit 1
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/entrypoint"]
CMD ["gateway"]

FROM release AS debug
USER root
RUN apt-get update \
    && apt-get install --yes \
        gdb \
        strace \
        tcpdump \
    && rm -rf /var/lib/apt/lists/*
USER app:app

FROM scratch AS test-results
COPY --from=accounts-test /out/test.log /accounts.log
COPY --from=accounts-test /out/cover.out /accounts.cover
COPY --from=billing-test /out/test.log /billing.log
COPY --from=billing-test /out/cover.out /billing.cover
COPY --from=catalog-test /out/test.log /catalog.log
COPY --from=catalog-test /out/cover.out /catalog.cover
COPY --from=delivery-test /out/test.log /delivery.log
COPY --from=delivery-test /out/cover.out /delivery.cover
COPY --from=events-test /out/test.log /events.log
COPY --from=events-test /out/cover.out /events.cover
COPY --from=files-test /out/test.log /files.log
COPY --from=files-test /out/cover.out /files.cover
COPY --from=gateway-test /out/test.log /gateway.log
COPY --from=gateway-test /out/cover.out /gateway.cover
COPY --from=history-test /out/test.log /history.log
COPY --from=history-test /out/cover.out /history.cover

FROM release
