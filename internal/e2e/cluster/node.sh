#!/usr/bin/env bash
# A whole cluster of one node: control plane, container runtime, kubelet and
# kube-proxy. Runs as the first process of the cluster's own pid and mount
# namespace, in its own network namespace, so that one kill ends all of it and
# nothing it mounts is seen outside.
#
#   node.sh DIR BIN NODE_IP CGROUP
#
# DIR holds pki/ and images/ and gets everything else; BIN has the programs. Pods
# are below CGROUP, which is there.
#
# Takes commands on standard input, and repeats each when it is done:
#
#   off   the machine loses its power: every process that is not the control
#         plane's, and all that is in memory
#   on    it starts again, with what is on its disk
set -euo pipefail
dir=$1 bin=$2 ip=$3 cgroup=$4
socket=/run/containerd/containerd.sock
mkdir -p "$dir"/{log,containerd,cni,kubelet,sysctl}

mount --make-rshared / # as kubelet's own mounts must reach the containers
echo 1 >/proc/sys/net/ipv4/ip_forward # of the network namespace alone
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
# These are the machine's own. kubelet finds files here that already say what it
# would write.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	file=$dir/sysctl/${setting//\//_}
	echo "${setting#*=}" >"$file"
	mount --bind "$file" "/proc/sys/${setting%=*}"
done

cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd"
state = "/run/containerd"
[grpc]
address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/local/pause:1"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
END
# Pods have IPv6 too, since it is a way out that is easily forgotten.
cat >"$dir/cni/10-bridge.conflist" <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:10:244::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
cat >"$dir/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: $cgroup
cgroupsPerQOS: true
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$socket
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet.crt
tlsPrivateKeyFile: $dir/pki/kubelet.key
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: ""
failSwapOn: false
maxPods: 250
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
syncFrequency: 5s
configMapAndSecretChangeDetectionStrategy: Watch
nodeStatusUpdateFrequency: 4s
serializeImagePulls: false
volumePluginDir: $dir/volplugins
END
cat >"$dir/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $dir/pki/proxy.kubeconfig}
mode: iptables
clusterCIDR: 10.244.0.0/16
hostnameOverride: node1
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms}
END

# start NAME COMMAND…: in the background, with its output in a file.
start() {
	local name=$1
	shift
	"$@" >>"$dir/log/$name" 2>&1 &
}

# service NAME COMMAND…: start, and again whenever it ends, as a node's service manager does.
service() {
	local name=$1
	shift
	while true; do
		"$@" >>"$dir/log/$name" 2>&1 || true
		sleep 1
	done &
}

# until_true COMMAND…: for a minute.
until_true() {
	for _ in $(seq 600); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	echo "not within a minute: $*" >&2
	return 1
}

# containers starts what kubelet has containers from. It does not wait for it.
containers() {
	mount -t tmpfs tmpfs /run
	mkdir -p /run/lock
	start containerd containerd -c "$dir/containerd.toml"
}

# pods has the node run pods.
pods() {
	service kubelet "$bin/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$dir/pki/kubelet.kubeconfig" --root-dir="$dir/kubelet" \
		--hostname-override=node1 --node-ip="$ip" --cert-dir="$dir/pki"
	start proxy "$bin/kube-proxy" --config="$dir/proxy.yaml"
}

# doomed prints the processes that end with the node: all but this one and the
# control plane's, which would be on machines of its own.
doomed() {
	local p
	for p in /proc/[0-9]*; do
		p=${p#/proc/}
		[[ " 1 $BASHPID $control_plane " == *" $p "* ]] || echo "$p"
	done
}

# power_off leaves nothing but what is on disk.
power_off() {
	local p left
	# The first call ends nearly all at once, as a machine's end does; what was
	# being started meanwhile is found by the next.
	while left=$(doomed) && [ -n "$left" ]; do
		kill -9 $left 2>/dev/null || true
		sleep 0.05
	done
	# Newest first: what is mounted on another is after it.
	tac /proc/self/mountinfo | awk -v dir="$dir/" '$5 ~ "^/run(/|$)" || index($5, dir) == 1 {print $5}' | while read -r p; do
		umount -l "$p" 2>/dev/null || true
	done
	! ip link show cni0 >/dev/null 2>&1 || ip link del cni0
	nft flush ruleset
	conntrack -F >/dev/null 2>&1
	find /sys/fs/cgroup -path "*$cgroup/*" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

containers
start etcd "$bin/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync \
	--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
control_plane=$!
start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
	--bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$ip" --service-cluster-ip-range=10.96.0.0/16 \
	--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
	--client-ca-file="$dir/pki/ca.crt" --tls-cert-file="$dir/pki/apiserver.crt" --tls-private-key-file="$dir/pki/apiserver.key" \
	--service-account-issuer=https://kubernetes.default.svc \
	--service-account-key-file="$dir/pki/sa.key" --service-account-signing-key-file="$dir/pki/sa.key" \
	--kubelet-client-certificate="$dir/pki/kubelet-client.crt" --kubelet-client-key="$dir/pki/kubelet-client.key" \
	--kubelet-certificate-authority="$dir/pki/ca.crt" --kubelet-preferred-address-types=InternalIP
control_plane+=" $!"
until_true "$bin/kubectl" --kubeconfig "$dir/pki/admin.kubeconfig" get --raw /readyz
start controllers "$bin/kube-controller-manager" --kubeconfig="$dir/pki/kcm.kubeconfig" --use-service-account-credentials \
	--service-account-private-key-file="$dir/pki/sa.key" --root-ca-file="$dir/pki/ca.crt" \
	--cluster-signing-cert-file="$dir/pki/ca.crt" --cluster-signing-key-file="$dir/pki/ca.key" \
	--leader-elect=false --bind-address=127.0.0.1 --cluster-cidr=10.244.0.0/16 --allocate-node-cidrs=false
control_plane+=" $!"
start scheduler "$bin/kube-scheduler" --kubeconfig="$dir/pki/scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
control_plane+=" $!"

until_true ctr -a "$socket" version
for image in "$dir"/images/*.tar; do
	ctr -a "$socket" -n k8s.io images import "$image" >>"$dir/log/images" 2>&1
done
pods

while read -r command; do
	case $command in
	off) power_off ;;
	on)
		containers
		until_true ctr -a "$socket" version
		pods
		;;
	esac
	echo "$command"
done
wait
