//go:build netns

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestE01DirectConnectionsLandInTheEngineAndAreJudged(t *testing.T) {
	for _, at := range []string{"203.0.113.9", "[2001:db8::9]", "10.1.2.3", "169.254.169.254", "[fe80::9%25lo]", "[fd00:ec2::254]", "[::ffff:203.0.113.9]"} {
		t.Run(at, func(t *testing.T) {
			c := newCage(t)
			to := strings.ReplaceAll(at, "%25", "%") + ":" + c.port
			said := c.attack("get", "POST", "https://localhost:"+c.port+"/ok", to)
			c.want(said, "get: 200 origin saw POST /ok hello")
			c.wantRecords("egress_allowed decision transparent localhost ", "egress_allowed complete transparent localhost ")
		})
	}
}

func TestE01WhatIsNotAllowedIsDeniedAndRecorded(t *testing.T) {
	c := newCage(t)
	said := c.attack("get", "GET", "https://localhost:"+c.port+"/ok", "203.0.113.9:"+c.port)
	if !strings.HasPrefix(said, "get: 403 ") || !strings.Contains(said, `"reason":"method_not_allowed"`) {
		t.Errorf("a denied method: %s", said)
	}
	c.wantRecords("egress_denied decision transparent localhost method_not_allowed")

	c = newCage(t)
	c.want(c.attack("get", "GET", "https://denied.test/", "203.0.113.9:443"), "get: Get \"https://denied.test/\": remote error: tls: unrecognized name")
	c.want(c.attack("get", "GET", "https://1.1.1.1/", "1.1.1.1:443"), "get: Get \"https://1.1.1.1/\": remote error: tls: unrecognized name")
	c.want(c.attack("get", "GET", "https://[2606:4700::1111]/", "[2606:4700::1111]:443"), "get: Get \"https://[2606:4700::1111]/\": remote error: tls: unrecognized name")
	for _, to := range []string{"9.9.9.9:80", "[2620:fe::fe]:80", "0.0.0.9:8080"} {
		if said := c.attack("get", "GET", "http://"+to+"/", "-"); !strings.HasPrefix(said, "get: 403 ") {
			t.Errorf("plain HTTP to %s: %s", to, said)
		}
	}
	c.wantRecords(
		"egress_denied decision transparent denied.test not_in_allowlist", "egress_denied decision transparent  no_sni", "egress_denied decision transparent  no_sni",
		"egress_denied decision transparent 9.9.9.9 not_in_allowlist", "egress_denied decision transparent 2620:fe::fe not_in_allowlist",
		"egress_denied decision transparent 0.0.0.9 not_in_allowlist")
}

// A program that knows no proxy finds an allowed host by DNS, and gets to it.
func TestE01AProgramThatKnowsNoProxyWorks(t *testing.T) {
	c := newCage(t)
	// The system's library and resolv.conf, by way of the shell: 198.19 is the resolver's.
	r := c.run("sh", "-c", "getent ahosts api.allowed.test; getent ahosts denied.test; getent hosts localhost")
	if !strings.Contains(r.stdout, "198.19.149.171") || !strings.Contains(r.stdout, "fdae:6a11:5e9:0:ab58:7dd3:bf32:ca1") || strings.Contains(r.stdout, "denied") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	said := c.attack("get", "GET", "https://api.allowed.test/", "-")
	if !strings.HasPrefix(said, "get: 502 ") || !strings.Contains(said, `"reason":"resolve_failed"`) { // nobody has that name
		t.Errorf("%s", said)
	}
	got := c.records()
	for _, want := range []string{"egress_denied decision dns denied.test dns_name_denied", "egress_allowed decision transparent api.allowed.test ", "egress_error complete transparent api.allowed.test resolve_failed"} {
		if !slices.Contains(got, want) {
			t.Errorf("no record %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
	// And one that does works as without isolation.
	r = c.run("sh", "-c", "export HTTPS_PROXY=http://127.0.0.1:14128; agent POST https://localhost:"+c.port+"/ok hello")
	if !strings.Contains(r.stdout, "origin saw POST /ok hello") {
		t.Errorf("by proxy: %s%s", r.stdout, r.stderr)
	}
}

func TestE02WhatIsNotTCPIsDropped(t *testing.T) {
	c := newCage(t)
	c.want(c.attack("udp", "9.9.9.9:443", "[2620:fe::fe]:443", "255.255.255.255:9", "224.0.0.251:5353", "[ff02::fb%lo]:5353", "198.19.0.1:53000", "10.0.0.1:123"),
		"9.9.9.9:443: EPERM", "[2620:fe::fe]:443: EPERM", "255.255.255.255:9: EPERM", "224.0.0.251:5353: EPERM", "[ff02::fb%lo]:5353: EPERM",
		"198.19.0.1:53000: EPERM", "10.0.0.1:123: EPERM")
	c.want(c.attack("sockets"),
		"raw IPv4: EPERM", "raw ICMP: EPERM", "raw ICMPv6: EPERM", "packet: EAFNOSUPPORT", "vsock: EAFNOSUPPORT", "bluetooth: EAFNOSUPPORT", "smc: EAFNOSUPPORT",
		"tipc: EAFNOSUPPORT", "alg: EAFNOSUPPORT", "ping: EACCES", "ping IPv6: EACCES", "sctp: ", "udplite: ",
		"SO_MARK: EPERM", "IP_TRANSPARENT: EPERM", "SO_BINDTODEVICE: HTTP/1.1 403")
	for _, line := range strings.Split(c.attack("sockets"), "\n") {
		if strings.HasSuffix(line, "WORKED") {
			t.Error(line)
		}
	}
}

func TestE02DNSToAnyServerIsAnsweredHere(t *testing.T) {
	c := newCage(t)
	for _, server := range []string{"9.9.9.9:53", "[2620:fe::fe]:53", "127.0.0.1:53", "127.0.0.53:53", "10.96.0.10:53"} {
		for _, network := range []string{"udp", "tcp"} {
			if r := c.run("lookup", network, server, "api.allowed.test."); !strings.Contains(r.stdout, "198.19.149.171") {
				t.Errorf("%s %s: %s%s", network, server, r.stdout, r.stderr)
			}
			if r := c.run("lookup", network, server, "c2VjcmV0.exfil.test."); r.code != 3 || !strings.Contains(r.stderr, "no such host") {
				t.Errorf("%s %s: %s%s", network, server, r.stdout, r.stderr)
			}
		}
	}
	for _, line := range c.records() {
		if line != "egress_denied decision dns c2vjcmv0.exfil.test dns_name_denied" {
			t.Errorf("record %q", line)
		}
	}
	if n := len(c.records()); n < 20 {
		t.Errorf("%d records of 10 lookups of both families", n)
	}
}

// DNS over HTTPS and over TLS are connections like any other.
func TestE02DNSOverHTTPSIsJudged(t *testing.T) {
	c := newCage(t)
	c.want(c.attack("get", "POST", "https://dns.google/dns-query", "8.8.8.8:443"), "get: Post \"https://dns.google/dns-query\": remote error: tls: unrecognized name")
	c.want(c.attack("get", "POST", "https://one.one.one.one/", "1.1.1.1:853"), "get: Post \"https://one.one.one.one/\": remote error: tls: unrecognized name")
	c.wantRecords("egress_denied decision transparent dns.google not_in_allowlist", "egress_denied decision transparent one.one.one.one not_in_allowlist")
}

func TestE01MultipathTCPIsJudgedToo(t *testing.T) {
	c := newCage(t)
	c.want(c.attack("multipath", "mp.denied.test", "192.0.2.1:443"), "192.0.2.1:443: remote error: tls: unrecognized name")
	c.wantRecords("egress_denied decision transparent mp.denied.test not_in_allowlist")
}

// networkRefused is what attackNetwork must say.
func networkRefused(flush string) []string {
	core := "EACCES"
	if os.Getuid() == 0 {
		core = "EROFS" // root's user owns the file
	}
	return []string{
		"ip link set lo down: EPERM", "ip address add: EPERM", "ip route add: EPERM", "nft flush ruleset: " + flush, "nft list tables: ",
		"sysctl net/ipv4/ip_forward: " + core, "sysctl net/ipv4/conf/all/route_localnet: " + core, "sysctl kernel/core_pattern: " + core, "setns of process 1: EACCES",
	}
}

func TestE03TheNetworkCannotBeChanged(t *testing.T) {
	c := newCage(t)
	c.want(c.attack("network"), networkRefused("EPERM")...)
	// Every capability over a user namespace below gives none over this one.
	c.nested([]string{"old", "network"}, networkRefused("EPERM")...)
	// A network namespace of one's own can be changed at will, and leads nowhere.
	c.nested([]string{"new", "flush"}, "flush: WORKED")
	c.nested([]string{"new", "udp", "9.9.9.9:443"}, "9.9.9.9:443: ENETUNREACH")
	c.nested([]string{"new", "dial", "9.9.9.9:443"}, "9.9.9.9:443: ENETUNREACH")
	// The rules are as they were.
	c.want(c.attack("udp", "9.9.9.9:443"), "9.9.9.9:443: EPERM")
	c.wantRecords()
}

func TestE03TheEngineIsOutOfSight(t *testing.T) {
	c := newCage(t)
	pid := fmt.Sprint(os.Getpid()) // a process outside, of the same user
	want := []string{
		"ptrace 1: EPERM", "environ 1: EACCES", "mem 1: EACCES", "fd 1: EACCES", "pidfd_getfd 1: EPERM", "process_vm_readv 1: EPERM",
		"ptrace " + pid + ": ESRCH", "environ " + pid + ": ENOENT", "mem " + pid + ": ENOENT", "fd " + pid + ": ENOENT",
		"pidfd_getfd " + pid + ": EINVAL", "process_vm_readv " + pid + ": ESRCH",
	}
	said := c.attack("process", pid)
	want[10] = "pidfd_getfd " + pid // no such process, however the kernel says it
	c.want(said, want...)
	c.nested([]string{"old", "process", pid}, want...)
}

func TestE03NoPrivilegeIsLeft(t *testing.T) {
	c := newCage(t)
	c.want(c.attack("status"), "looked")
	// Nor does a program with privileges of its own get them.
	r := c.run("sh", "-c", "for p in su sudo ping newuidmap; do p=$(command -v $p) && $p --version >/dev/null 2>&1; done; attack status")
	c.want(r.stdout, "looked")
}

// Root without capabilities still owns the kernel's files, wherever it can mount
// them. A user namespace needs no map for that.
func TestE03RootMountsNothingOfTheKernels(t *testing.T) {
	want := "unmapped: ENOSPC\n"
	if os.Getuid() != 0 {
		want = "unmapped: WORKED\n" // and is of no use
	}
	c := newCage(t)
	if said := c.attack("unmapped", c.dir); !strings.HasPrefix(said, want) {
		t.Errorf("got\n%s", said)
	}
}

func TestE03CallsThatLeadAroundAreRefused(t *testing.T) {
	c := newCage(t)
	want := []string{"TIOCSTI: EPERM", "TIOCLINUX: EPERM", "io_uring_setup: ENOSYS", "request_key: ENOSYS", "TIOCSTI with high bits: EPERM", "an x32 call: ENOSYS"}
	c.want(c.attack("calls"), want...)
	c.nested([]string{"old", "calls"}, want...)
}

func TestE03ThisMachineIsOutOfReach(t *testing.T) {
	c := newCage(t)
	// A service on the machine's loopback, and on its other addresses.
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	c.want(c.attack("dial", "127.0.0.1:"+port, "[::1]:"+port, "198.18.0.1:"+port), "127.0.0.1:"+port+": ECONNREFUSED", "[::1]:"+port+": ECONNREFUSED", "198.18.0.1:"+port+": ECONNREFUSED")
	for _, a := range hostAddresses() {
		to := net.JoinHostPort(a.String(), port)
		c.want(c.attack("dial", to), to+": HTTP/1.1 403")
	}
	// Unix sockets: abstract ones are of the network namespace, others are hidden.
	abstract, err := net.Listen("unix", "@aegrail-test-"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	paths := []string{"@aegrail-test-" + port, filepath.Join(c.dir, "host.sock"), filepath.Join(t.TempDir(), "d.sock")}
	for _, path := range paths[1:] {
		host, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
	}
	c.want(c.attack(append([]string{"unix"}, paths...)...), paths[0]+": ECONNREFUSED", paths[1]+": ECONNREFUSED", paths[2]+": ECONNREFUSED")
}

func TestE03NothingIsInherited(t *testing.T) {
	c := newCage(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.before = func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f, f, f} } // as a careless parent leaves them
	c.want(c.attack("fds"), "looked")
}

func TestE04TheEnginesPortsByHand(t *testing.T) {
	c := newCage(t)
	c.want(c.attack("dial", "127.0.0.1:14443", "[::1]:14443", "127.0.0.1:14128"),
		"127.0.0.1:14443: closed", "[::1]:14443: closed", "127.0.0.1:14128: HTTP/1.1 ")
	got := c.records()
	for _, want := range []string{"egress_denied decision transparent  not_redirected"} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != want })); n != 2 {
			t.Errorf("%d records %q in\n%s", n, want, strings.Join(got, "\n"))
		}
	}
	if r := c.run("lookup", "udp", "127.0.0.1:14053", "denied.test."); r.code != 3 {
		t.Errorf("the resolver by hand: %s%s", r.stdout, r.stderr)
	}
}

func TestE05KeysPolicyAndLogAreOutOfReach(t *testing.T) {
	c := newCage(t)
	c.run("true")
	key, policy, log := filepath.Join(c.dir, defaultExecLog+keySuffix), filepath.Join(c.dir, "policy.yaml"), filepath.Join(c.dir, defaultExecLog)
	if data, err := os.ReadFile(key); err != nil || len(data) == 0 {
		t.Fatalf("there is no key to hide: %v", err)
	}
	var want []string
	for _, what := range []string{"policy", "log"} {
		want = append(want, "write "+what+": EROFS", "truncate "+what+": EROFS", "rename "+what+": EBUSY", "remove "+what+": EBUSY", "link "+what+": EXDEV")
	}
	c.want(c.attack("files", key, policy, log), append([]string{"key: 0 bytes, <nil>"}, want...)...)
	hidden := []string{"umount: EINVAL", "lazy umount: EINVAL", "umount /proc: EINVAL", "remount: ", "bind the directory: EINVAL",
		"clone the tree: EINVAL", "overlay: EINVAL", "proc: EPERM", "key: 0 bytes, <nil>"}
	c.nested([]string{"old", "mounts", key, c.dir}, hidden...)
	c.want(c.attack("mounts", key, c.dir), "umount: EPERM", "lazy umount: EPERM", "umount /proc: EPERM", "remount: EPERM", "bind the directory: EPERM",
		"clone the tree: EPERM", "overlay: EPERM", "proc: EPERM", "key: 0 bytes, <nil>")
	// The bundle holds certificates alone, and nothing else of the engine's is there.
	r := c.run("sh", "-c", "cat $(dirname $SSL_CERT_FILE)/*; tr '\\0' '\\n' </proc/self/environ")
	if strings.Contains(r.stdout, "PRIVATE KEY") {
		t.Error("a private key is in reach")
	}
}

// A directory that was opened outside leads through the mounts outside.
func TestE05ADirectoryIsNoStandardInput(t *testing.T) {
	c := newCage(t)
	dir, err := os.Open(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := c.engine("touch", "started")
	cmd.Stdin = dir
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "cannot isolate COMMAND: /dev/stdin is a directory") {
		t.Errorf("%d\n%s", cmd.ProcessState.ExitCode(), out)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "started")); err == nil {
		t.Error("COMMAND was started")
	}
}

// A directory's name, an argument and a variable are bytes to the kernel.
func TestE05NamesThatAreNotUTF8AreHeldAsOthers(t *testing.T) {
	c := newCage(t)
	policy, err := os.ReadFile(filepath.Join(c.dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.dir = filepath.Join(c.dir, "caf\xe9")
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.write("policy.yaml", string(policy))
	c.before = func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "BYTES=\xe9") }
	r := c.run("sh", "-c", `wc -c <`+defaultExecLog+keySuffix+`; echo >>policy.yaml; printf %s "$1$BYTES"`, "sh", "\xf0\x28")
	if !strings.HasPrefix(r.stdout, "0\n") || !strings.HasSuffix(r.stdout, "\xf0\x28\xe9") || !strings.Contains(r.stderr, "policy.yaml") {
		t.Errorf("%q\n%s", r.stdout, r.stderr)
	}
	if now, err := os.ReadFile(filepath.Join(c.dir, "policy.yaml")); err != nil || !bytes.Equal(now, policy) {
		t.Errorf("the policy was written: %v", err)
	}
}

func TestE06WhatACommandLeavesBehindIsHeldAndEnds(t *testing.T) {
	c := newCage(t)
	r := c.run("sh", "-c", "attack orphan out dial 9.9.9.9:80; while [ ! -e out.done ]; do sleep 0.02; done; cat out.done; exit 5")
	if r.code != 5 || !strings.Contains(r.stdout, "9.9.9.9:80: HTTP/1.1 403") || !strings.Contains(r.stdout, "orphan of 1\n") {
		t.Errorf("%d\n%s%s", r.code, r.stdout, r.stderr)
	}
	f, err := os.Open(filepath.Join(c.dir, "out.done"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the orphan lives on: %v", err)
	}
}
