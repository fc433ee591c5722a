# The image of all three programs: static binaries and the public CA roots,
# nothing else. There is no shell to escape to and no package to patch.
#
# The same sources give the same files: paths are trimmed, times are those of
# the epoch (for the layers too: buildah build --timestamp 0, or BuildKit with
# SOURCE_DATE_EPOCH=0 and rewrite-timestamp).
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# -buildvcs=auto stamps the revision when .git is in the context. The image's
# own ca-certificates are Mozilla's roots; control puts them into bundles.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags='-s -w' -o /out/ ./cmd/... \
 && mkdir -p /out/etc/ssl/certs /out/var/log/aegrail \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
 && chown 65532:65532 /out/var/log/aegrail \
 && find /out -exec touch -h -d @0 {} +

FROM scratch
LABEL org.opencontainers.image.title="aegrail-engine" \
      org.opencontainers.image.description="The only way out for an AI agent: engine, control and aegrail-init" \
      org.opencontainers.image.source="https://github.com/arpitcoder/aegrail-engine" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
# Nobody. aegrail-init alone needs root, and the pod says so for it.
USER 65532:65532
ENTRYPOINT ["/aegrail-engine"]
CMD ["serve"]
