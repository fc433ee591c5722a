# aegrail-engine. `make` prints this help.
#
# demo and test need Go and nothing else. The race detector needs a C
# compiler, lint golangci-lint, generate protoc, test-clients real clients:
# .ci/run brings all of them.

GO      ?= go
BIN     ?= bin
FUZZ    ?= 60s
KILLS   ?= 200
# Where tests leave what they covered; by default nowhere. cover reads it, or makes one.
COVERPROFILE ?=
SOAK    ?= 30m
GOLANGCI ?= golangci-lint
# Where fuzz targets are: beside fuzz/, those that need what is not exported.
FUZZED  := ./fuzz ./certs ./internal/audit ./internal/proxy
# Nested modules: what the product must not depend on.
NESTED  := $(patsubst %/go.mod,%,$(wildcard internal/*/go.mod))
# What holds for them as well. The other linters hold the product's own lines: who dials, who reads the environment, who exits.
NESTEDLINT := bidichk,copyloopvar,durationcheck,errorlint,funlen,gocheckcompilerdirectives,govet,ineffassign,makezero,misspell,nolintlint,predeclared,staticcheck,unconvert,unused,wastedassign

.DEFAULT_GOAL := help
.PHONY: help build test race lint fuzz fuzz-seeds bench attacks soak kills generate checkgenerate demo test-clients test-netns test-disks chart manifests test-image e2e e2e-stack crosscheck cover check clean

help: ## print this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static, stripped binaries, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o $(BIN)/ ./cmd/...

test: ## all tests; needs Go and nothing else
	$(GO) test $(if $(COVERPROFILE),-coverprofile=$(COVERPROFILE)) ./...

# Without GORACE each program waits a second at its end for races to come; scripts start hundreds.
race: ## all tests under the race detector; needs a C compiler
	CGO_ENABLED=1 GORACE="atexit_sleep_ms=50 $$GORACE" $(GO) test -race -timeout 20m ./...

lint: ## go vet and golangci-lint, also of the nested modules
	$(GO) vet ./...
	@for d in $(NESTED); do echo "$(GO) vet ./... in $$d"; (cd $$d && $(GO) vet ./...) || exit 1; done
	$(GOLANGCI) run ./...
	@for d in $(NESTED); do echo "golangci-lint in $$d"; (cd $$d && $(GOLANGCI) run --enable-only $(NESTEDLINT) ./...) || exit 1; done

fuzz: ## each fuzz target for a minute (FUZZ=10s for less)
	@for p in $(FUZZED); do for t in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "== $$t"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZ) $$p || exit 1; done; done

fuzz-seeds: ## the seeds of every fuzz target; a target without seeds fails
	GO='$(GO)' .ci/fuzz-seeds $(FUZZED)

bench: ## the engine beside other proxies on one core; writes BENCH.md and the README's table
	cd internal/bench && $(GO) run . -o BENCH.md -short ../../README.md

attacks: ## the catalogue of attacks against the engine and other proxies; writes ATTACKS.md
	cd internal/attacks && $(GO) run . -o ATTACKS.md

soak: ## the program under everything at once for half an hour, in namespaces of its own (SOAK=3m for less; Linux)
	cd internal/soak && $(GO) run . -for $(SOAK)

kills: ## kill -9 the log's writer 200 times for each durability (KILLS=20 for fewer)
	$(GO) test -v -count=1 -run 'TestL05Killed$$' ./internal/audit -kills $(KILLS)

generate: ## generated code and formatting
	$(GO) generate ./...
	gofmt -w $$(git ls-files '*.go')

checkgenerate: ## fail if formatting, go.mod or generated code would change
	GO='$(GO)' NESTED='$(NESTED)' .ci/checkgenerate

demo: ## a model server, an agent and the engine between them, then audit verify
	$(GO) run ./deploy/demo

test-clients: ## real clients through the engine: curl, Python, Node, git, Java, h2load; installs them
	internal/clients/run.sh

test-netns: ## redirected connections, isolated commands and pods, in namespaces that the tests make (Linux; pods need root)
	GO='$(GO)' .ci/test-netns

test-disks: ## the engine on disks that fill up and fail, in a mount namespace (Linux, root)
	$(GO) test -tags faults -run TestL04Disks ./cmd/aegrail-engine

chart: ## the chart without a cluster: lint, helm-unittest, what is rendered from it; installs helm
	GO='$(GO)' .ci/chart

manifests: ## the chart's README, and what deploy has of the chart
	GO='$(GO)' .ci/chart -update

test-image: ## the Dockerfile built whole without a registry, and the image run (Linux, root)
	GO='$(GO)' .ci/test-image

e2e: ## a Kubernetes cluster of its own with the tests in it (Linux, root); the first time builds the cluster
	GO='$(GO)' internal/e2e/run.sh

e2e-stack: ## only what the cluster is made of, into a cache outside the tree; a quarter of an hour the first time
	GO='$(GO)' internal/e2e/run.sh --stack

crosscheck: ## our formats against other implementations: Python's verify_chain, OpenSSL
	$(GO) test -tags 'python openssl' ./certs/... ./internal/audit/... ./internal/podca/...

cover: ## coverage, with the floors that the project sets itself
	GO='$(GO)' .ci/cover $(COVERPROFILE)

check: test lint checkgenerate fuzz-seeds ## what to run before a push

clean: ## remove what make built
	rm -rf $(BIN)
