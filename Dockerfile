# The image: static binaries and the public CA roots, nothing else.
# There is no shell to escape to and no package to patch.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# -buildvcs=auto stamps the revision when .git is in the context.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags='-s -w' -o /out/ ./cmd/... \
 && mkdir -p /out/audit && chown 65532:65532 /out/audit

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/aegrail-engine /aegrail-engine
# An init container's command; it needs root and NET_ADMIN there.
COPY --from=build /out/aegrail-init /aegrail-init
# The log's home when no volume is mounted over it.
COPY --from=build --chown=65532:65532 /out/audit /var/log/aegrail
USER 65532:65532
ENTRYPOINT ["/aegrail-engine"]
CMD ["serve"]
