//go:build netns

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

// changeProgram tries to change the rules and the network.
func changeProgram([]string) {
	c, err := nftables.New()
	if err == nil {
		c.FlushRuleset()
		err = c.Flush()
	}
	say("nft flush ruleset", err)
	_, err = c.ListTables()
	say("nft list tables", err)
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"} {
		f, err := os.OpenFile("/proc/sys/"+path, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		say("sysctl "+path, err)
	}
	say("iptables", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		_ = unix.Close(fd)
		return err
	}())
}

func TestTheKernelHasTheRulesOfAPod(t *testing.T) {
	golden, err := os.ReadFile("testdata/pod.txt")
	if err != nil {
		t.Fatal(err)
	}
	bare := netns.NewPod(t)
	if out, code := bare.Run(t, initContainer(), "aegrail-init", "dump"); code != 1 || !strings.Contains(out, "there are no rules here") {
		t.Errorf("dump without rules: %d %s", code, out)
	}
	flags := []string{"check", "--engine-uid", strconv.Itoa(engineUID), "--passage", "/no/such/socket", "--free", "10.77.0.2,fd77::2"}
	if out, code := bare.Run(t, initContainer(), "aegrail-init", flags...); code != 1 || !strings.Contains(out, "missing: table inet aegrail {") {
		t.Errorf("check without rules: %d %s", code, out)
	}
	p := pod(t, "--free", "10.77.0.2,fd77::2")
	for range 2 { // to serve twice is to make the rules once
		want(t, run1(t, p.Pod, initContainer(), "aegrail-init", "dump"), strings.TrimSuffix(string(golden), "\n"))
		want(t, run1(t, p.Pod, initContainer(), "aegrail-init", append([]string{"check"}, p.flags...)...), "the rules are as they should be, and the engine's sockets are marked")
		p.stop()
		p.serve()
	}
	if out, code := p.Run(t, initContainer(), "aegrail-init", append([]string{"check", "--dns-port", "53"}, p.flags...)...); code != 1 || !strings.Contains(out, "not ours: meta l4proto udp th dport 53 redirect to :15053") {
		t.Errorf("check for another port: %d %s", code, out)
	}
	if out, code := p.Run(t, initContainer(), "aegrail-init", append([]string{"check"}, append(p.flags, "--passage", "/no/such/socket")...)...); code != 1 || !strings.Contains(out, "the engine's sockets are not marked: asking at /no/such/socket") {
		t.Errorf("check where nobody serves: %d %s", code, out)
	}
}

func TestWithoutNetAdminTheFixIsNamed(t *testing.T) {
	p := netns.NewPod(t)
	for name, c := range map[string]netns.Container{"no capability": {}, "no root": {UID: 1000, Caps: "-all,+net_admin"}} {
		for _, command := range []string{"serve", "check"} {
			out, code := p.Run(t, c, "aegrail-init", command, "--engine-uid", "7", "--passage", "/no/such/socket")
			if code != 1 || !strings.Contains(out, "CAP_NET_ADMIN") || !strings.Contains(out, "add: [NET_ADMIN]") {
				t.Errorf("%s, %s: %d %s", name, command, code, out)
			}
		}
	}
}

func TestE03NobodyChangesTheRules(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			got := run1(t, p.Pod, c, "change")
			if !strings.HasPrefix(got, "nft flush ruleset: EPERM\nnft list tables: EPERM\n") || !strings.HasSuffix(got, "iptables: EPERM\n") {
				t.Error(got)
			}
			if out, code := p.Run(t, c, "aegrail-init", "serve", "--engine-uid", strconv.Itoa(int(c.UID)+1), "--passage", filepath.Join(t.TempDir(), "passage")); code != 1 || !strings.Contains(out, "operation not permitted") {
				t.Errorf("aegrail-init: %d %s", code, out)
			}
		})
	}
	run1(t, p.Pod, initContainer(), "aegrail-init", append([]string{"check"}, p.flags...)...)
}
