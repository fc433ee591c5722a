#!/usr/bin/env bash
# Brings up a Kubernetes cluster of its own, runs the tests in it, and removes
# it again whatever happened. doc.go says what it consists of.
#
#   internal/e2e/run.sh                          everything
#   internal/e2e/run.sh -test.run TestE01        what a test binary takes
#   internal/e2e/run.sh --stack                  only builds what the cluster is made of
#   internal/e2e/run.sh -hold                    keeps the cluster after the tests; prints how to reach it
#
# Needs root (or sudo) for its namespaces. Debian packages are installed with
# apt where they are missing; no service is started by that.
set -euo pipefail
cd "$(dirname "$0")"
go=${GO:-go}

packages=(
	busybox-static conntrack containerd containernetworking-plugins ethtool iproute2 iptables nftables nodejs runc socat
	ca-certificates mount procps util-linux
)
missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ "${#missing[@]}" -gt 0 ]; then
	sudo=()
	[ "$(id -u)" -eq 0 ] || sudo=(sudo)
	"${sudo[@]}" apt-get update -qq
	DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

bin=$(GO=$go stack/build.sh)
[ "${1:-}" != --stack ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
	exec sudo --preserve-env env PATH="$PATH" "$PWD/run.sh" "$@"
fi

# Everything that has a name on this machine has this process's number in it, so
# that two runs do not meet.
netns=aegrail-e2e-$$
dir=$(mktemp -d "${TMPDIR:-/tmp}/$netns.XXXX")
# The control groups of its pods: one folder in each hierarchy, or in the only one.
hierarchies=(/sys/fs/cgroup)
[ -e /sys/fs/cgroup/cgroup.procs ] || hierarchies=(/sys/fs/cgroup/*/)

# down ends the tests, which ends the cluster (its first process dies with
# theirs), and takes what is left of it away.
down() {
	trap - EXIT
	ip netns pids "$netns" | xargs -r kill -9 || true
	for _ in $(seq 100); do
		[ -n "$(ip netns pids "$netns")" ] || break
		sleep 0.1
	done
	ip netns del "$netns"
	for _ in $(seq 100); do # the kernel takes a moment to let go
		for h in "${hierarchies[@]}"; do
			find "$h/$netns" -depth -type d -exec rmdir {} + 2>/dev/null || true
		done
		rm -rf "$dir" 2>/dev/null || true
		[ -d "$dir" ] || compgen -G "/sys/fs/cgroup/$netns" || compgen -G "/sys/fs/cgroup/*/$netns" || break
		sleep 0.1
	done
}

# The network: the node's address on a cable that ends in the same namespace,
# the resolver's address, and two of the world's, which the origins take. What
# goes anywhere else is lost. The world is IPv6 too.
ip netns add "$netns"
trap down EXIT
trap 'exit 130' INT TERM
for h in "${hierarchies[@]}"; do
	mkdir "$h/$netns"
done
ip -n "$netns" link set lo up
ip -n "$netns" link add node0 type veth peer name node0p
ip -n "$netns" addr add 10.240.0.1/24 dev node0
ip -n "$netns" addr add fd00:10:240::1/64 dev node0 nodad
ip -n "$netns" link set node0 up
ip -n "$netns" link set node0p up
ip -n "$netns" route add default via 10.240.0.2 dev node0
ip -n "$netns" -6 route add default via fd00:10:240::2 dev node0
for a in 10.96.0.10/32 1.2.3.4/32 1.2.3.5/32 2606:e2e::4/128; do
	ip -n "$netns" addr add "$a" dev lo
done

# What runs in pods, from this tree.
export CGO_ENABLED=0
mkdir "$dir/bin"
for p in agent pause; do
	"$go" build -trimpath -ldflags='-s -w' -o "$dir/bin/$p" "./$p"
done
(cd ../.. && "$go" build -trimpath -ldflags='-s -w' -o "$dir/bin/" ./cmd/...)
"$go" test -c -o "$dir/bin/e2e.test" .
ln -s "$(../../.ci/promtool)" "$dir/bin/promtool"

# In the background, since a trap waits for what is in the foreground.
AEGRAIL_E2E_DIR=$dir AEGRAIL_E2E_STACK=$bin AEGRAIL_E2E_CGROUP=/$netns nsenter --net="/run/netns/$netns" "$dir/bin/e2e.test" -test.v -test.timeout 25m "$@" &
wait $!
