#!/usr/bin/env bash
# Builds what the test cluster is made of from Go modules, since no registry of
# images is needed that way: Kubernetes, etcd, cert-manager and helm. Prints the
# folder they are in, which is kept outside the tree under a name that says what
# was built: the same sources are built once.
#
# kube, etcd and certmanager share a workspace, so that what they have in
# common compiles once. Flags are the same everywhere for the same reason. From
# an empty cache this takes a quarter of an hour on two cores, 3.2 GB to link
# Kubernetes and 5 GB of Go's cache.
set -euo pipefail
cd "$(dirname "$0")"
go=${GO:-go}
export CGO_ENABLED=0 GOFLAGS=-trimpath

KUBERNETES=1.37.2   # as kube/go.mod says
CERT_MANAGER=1.21.2 # as certmanager/go.mod says

cache=${AEGRAIL_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aegrail-engine-ci}
mkdir -p "$cache"
key=$({ "$go" env GOVERSION; cat go.work go.work.sum */go.mod */go.sum */main.go build.sh; } | sha256sum | cut -c1-16)
out=$(cd "$cache" && pwd)/stack-$key
exec 9>"$cache/stack.lock"
flock 9 # two at once would each take all memory
if [ -d "$out" ]; then
	echo "$out/bin"
	exit
fi
rm -rf "$out.new"
mkdir -p "$out.new/bin"

# built NAME PACKAGE [LDFLAGS]: says what it does, as the first time is long.
built() {
	echo "stack: building $1" >&2
	"$go" build -ldflags "-s -w ${3:-}" -o "$out.new/bin/$1" "$2" >&2
}

# Without its version the server says v0.0.0-master, and charts refuse it.
v=k8s.io/component-base/version
built kube ./kube "-X $v.gitVersion=v$KUBERNETES -X $v.gitMajor=1 -X $v.gitMinor=${KUBERNETES:2:2}"
for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
	ln -s kube "$out.new/bin/$name"
done
built etcd ./etcd
built certmanager ./certmanager
chart=$(cd certmanager && "$go" list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)/deploy/charts/cert-manager

# helm has versions of its own of what the others share, and believes in
# Kubernetes 1.20 where it is not told.
export GOWORK=off
v=helm.sh/helm/v3/pkg/chartutil
(cd helm && built helm helm.sh/helm/v3/cmd/helm "-X $v.k8sVersionMajor=1 -X $v.k8sVersionMinor=${KUBERNETES:2:2}")

# cert-manager's own chart, which its module has without a version.
cp -r "$chart" "$out.new/cert-manager"
chmod -R u+w "$out.new/cert-manager"
"$out.new/bin/helm" package "$out.new/cert-manager" --version "v$CERT_MANAGER" --app-version "v$CERT_MANAGER" -d "$out.new" >&2

mv "$out.new" "$out"
echo "$out/bin"
