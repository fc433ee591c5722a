//go:build netns

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/doctor"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
	"github.com/arpitcoder/aegrail-engine/internal/passage"
	"github.com/arpitcoder/aegrail-engine/internal/redirect"
	"github.com/arpitcoder/aegrail-engine/internal/trustenv"
)

// The tests here need root, setpriv and ip: `make test-netns` as root.

// podEngine is the engine's user in these tests.
const podEngine = 2000000777

// podPrograms are what runs in the containers of a pod.
func podPrograms() map[string]func([]string) {
	return map[string]func([]string){
		"aegrail-engine": func(args []string) {
			os.Args = append([]string{"aegrail-engine"}, args...)
			main()
		},
		"get":       attackGet,
		"multipath": multipathProgram,
		"wait": func([]string) {
			fmt.Println("ready")
			_, _ = io.Copy(io.Discard, os.Stdin)
		},
	}
}

// podRules are what aegrail-init makes of its defaults, with the pod's own
// addresses free as injection has it.
func podRules() redirect.Rules {
	return redirect.Rules{
		Transparent: 15001, DNS: 15053, Mark: passage.Mark, Protected: []uint16{15020, 15080},
		Free: []netip.Prefix{netip.MustParsePrefix("10.77.0.2/32"), netip.MustParsePrefix("fd77::2/128")},
	}
}

// injected is a pod with an engine in it, its files, and what agents are given.
type injected struct {
	*netns.Pod
	t      *testing.T
	dir    string // everybody's; below it "own" is the engine's alone
	bundle string
	log    string
	stop   func() // ends the engine
}

// newInjected makes a pod with rules and starts an engine in it, as serve would
// run beside an agent.
func newInjected(t *testing.T, rules *redirect.Rules, flags ...string) *injected {
	t.Helper()
	s := &injected{Pod: netns.NewPod(t), t: t}
	var err error
	if s.dir, err = os.MkdirTemp("", "aegrail-pod-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	own := filepath.Join(s.dir, "own")
	if err := errors.Join(os.Chmod(s.dir, 0o755), os.Mkdir(own, 0o700)); err != nil { //nolint:gosec // for the agents of this test
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"ca", "init", "--dir", filepath.Join(own, "ca")}, os.Getenv, io.Discard, os.Stderr); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(own, "policy.yaml")
	if err := os.WriteFile(policy, []byte(podPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	s.bundle, s.log = filepath.Join(s.dir, "bundle.pem"), filepath.Join(own, "audit.log")
	root, err := os.ReadFile(filepath.Join(own, "ca", "ca.crt"))
	if err := errors.Join(err, os.WriteFile(s.bundle, root, 0o644)); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	err = filepath.Walk(own, func(name string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Lchown(name, podEngine, podEngine))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Do(func() {
		if rules != nil {
			err = rules.Apply()
		}
		// As container runtimes have it: everybody may ping.
		err = errors.Join(err, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.world()
	s.passage(filepath.Join(s.dir, "passage"))
	s.serve(append([]string{"serve", "--policy", policy, "--ca-dir", filepath.Join(own, "ca"), "--audit-file", s.log,
		"--agent-namespace", "support", "--agent-service-account", "bot", "--agent-pod", "bot-1",
		"--transparent-listen", "127.0.0.1:15001", "--dns-listen", "127.0.0.1:15053", "--admin-listen", ":15020",
		"--passage", filepath.Join(s.dir, "passage")}, flags...))
	return s
}

// passage marks the engine's sockets, as aegrail-init does, until the test ends.
func (s *injected) passage(path string) {
	s.t.Helper()
	p := &passage.Server{Path: path, EngineUID: podEngine}
	ln, err := p.Listen()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Serve(ctx, ln) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
}

const podPolicy = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: bot}
spec:
  agents: {namespaces: [support], serviceAccounts: [bot]}
  allowlist: [api.allowed.test]
`

// world answers TCP and UDP on a port, beyond the pod.
func (s *injected) world() {
	for _, addr := range []string{"[::]:443", "[::]:53"} {
		var ln net.Listener
		var packets net.PacketConn
		var err, perr error
		s.Cluster.Do(func() {
			ln, err = net.Listen("tcp", addr)
			packets, perr = net.ListenPacket("udp", addr)
		})
		if err := errors.Join(err, perr); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { ln.Close(); packets.Close() })
		go func() { _ = http.Serve(ln, http.NotFoundHandler()) }() //nolint:gosec // for this test
	}
}

// serve starts the engine and waits until it serves.
func (s *injected) serve(args []string) {
	s.t.Helper()
	cmd := netns.Container{UID: podEngine, Caps: "-all"}.Command(s.t, "aegrail-engine", args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.Do(func() { err = cmd.Start() })
	if err != nil {
		s.t.Fatal(err)
	}
	lines, serving := bufio.NewScanner(stderr), make(chan bool, 1)
	var said strings.Builder
	go func() {
		defer close(serving)
		for lines.Scan() {
			if said.WriteString(lines.Text() + "\n"); strings.Contains(lines.Text(), "msg=serving") {
				serving <- true
			}
		}
	}()
	s.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	s.t.Cleanup(s.stop)
	if !<-serving {
		s.t.Fatalf("the engine did not start:\n%s", said.String())
	}
}

// agent is a container of the pod with the environment that injection gives
// it, and then its own.
func (s *injected) agent(c netns.Container) netns.Container {
	s.t.Helper()
	env, err := trustenv.Build(os.Environ(), trustenv.Settings{Redirected: true, BundlePEM: s.bundle})
	if err != nil {
		s.t.Fatal(err)
	}
	c.Environ = append(env, c.Environ...)
	return c
}

// examined runs doctor and returns its report, and what is open as "id check".
func (s *injected) examined(c netns.Container, args ...string) (r doctor.Report, openRows []string, enforced bool, code int) {
	s.t.Helper()
	out, code := s.Run(s.t, s.agent(c), "aegrail-engine", append([]string{"doctor", "--json"}, args...)...)
	var doc struct {
		Enforced bool
		Report   doctor.Report
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		s.t.Fatalf("doctor ended with %d: %v\n%s", code, err, out)
	}
	for _, f := range doc.Report.Findings {
		if !f.Held {
			openRows = append(openRows, f.ID+" "+f.Check)
		}
		if f.Held != (f.Fix == "") || f.Found == "" {
			s.t.Errorf("a finding without its half: %+v", f)
		}
	}
	return doc.Report, openRows, doc.Enforced, code
}

func TestPodDoctorFindsNothingOpen(t *testing.T) {
	rules := podRules()
	s := newInjected(t, &rules)
	for name, c := range map[string]netns.Container{"a user": {UID: 1000}, "root": {}} {
		t.Run(name, func(t *testing.T) {
			r, openRows, enforced, code := s.examined(c, "--host", "api.allowed.test")
			if len(openRows) > 0 || code != 0 || !enforced || r.Held != len(r.Findings) || r.Open != 0 {
				t.Errorf("exit code %d, enforced: %v, %s", code, enforced, r.Text())
			}
		})
	}
	if got := recordsOf(t, s.log); !slices.Contains(got, "egress_denied decision transparent  not_redirected") {
		t.Errorf("the transparent port by hand left no record in\n%s", strings.Join(got, "\n"))
	}
	out, code := s.Run(t, s.agent(netns.Container{UID: 1000}), "aegrail-engine", "doctor")
	if code != 0 || strings.Contains(out, "OPEN") || strings.Contains(out, "NOT ENFORCED") || strings.Count(out, "\nheld  E") < 15 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestPodE01WhatIsDialledIsJudgedByName(t *testing.T) {
	rules := podRules()
	s := newInjected(t, &rules)
	for i, to := range []string{"192.0.2.1:443", "[2001:db8::1]:443", "10.77.0.1:443"} {
		host := fmt.Sprintf("dns%d.denied.test", i)
		out, _ := s.Run(t, s.agent(netns.Container{UID: 1000}), "get", "POST", "https://"+host+"/dns-query", to)
		if !strings.Contains(out, "tls: unrecognized name") {
			t.Errorf("%s by %s: %s", host, to, out)
		}
		if got := recordsOf(t, s.log); !slices.Contains(got, "egress_denied decision transparent "+host+" not_in_allowlist") {
			t.Errorf("no record of %s in\n%s", host, strings.Join(got, "\n"))
		}
	}
}

// multipathProgram: HOST ADDR…: a TLS handshake over Multipath TCP.
func multipathProgram(args []string) {
	d := net.Dialer{Timeout: patience}
	d.SetMultipathTCP(true)
	for _, to := range args[1:] {
		conn, err := d.Dial("tcp", to)
		if err != nil {
			say(to, err)
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Printf("%s: %v\n", to, tls.Client(conn, &tls.Config{ServerName: args[0]}).Handshake())
		conn.Close()
	}
}

func TestPodE01MultipathTCPIsJudgedToo(t *testing.T) {
	rules := podRules()
	s := newInjected(t, &rules)
	out, _ := s.Run(t, s.agent(netns.Container{UID: 1000}), "multipath", "mp.denied.test", "192.0.2.1:443", "[2001:db8::1]:443")
	if out != "192.0.2.1:443: remote error: tls: unrecognized name\n[2001:db8::1]:443: remote error: tls: unrecognized name\n" {
		t.Error(out)
	}
	if got := recordsOf(t, s.log); !slices.Contains(got, "egress_denied decision transparent mp.denied.test not_in_allowlist") {
		t.Errorf("no record in\n%s", strings.Join(got, "\n"))
	}
}

func TestPodE01WithoutItsEngineNothingLeaves(t *testing.T) {
	rules := podRules()
	s := newInjected(t, &rules)
	s.stop()
	capture := s.Capture(t)
	for _, to := range []string{"192.0.2.1:443", "[2001:db8::1]:443"} {
		out, _ := s.Run(t, s.agent(netns.Container{UID: 1000}), "get", "GET", "https://api.allowed.test/", to)
		if !strings.Contains(out, "connection refused") {
			t.Errorf("%s: %s", to, out)
		}
	}
	// Nor can doctor be sure then: it does not see who refuses.
	if _, openRows, enforced, code := s.examined(netns.Container{UID: 1000}, "--timeout", "300ms"); code != 1 || enforced || !slices.Contains(openRows, "E1 TCP to an IPv4 address") {
		t.Errorf("exit code %d, enforced: %v, open:\n%s", code, enforced, strings.Join(openRows, "\n"))
	}
	s.Cluster.Do(func() {
		conn, err := net.Dial("udp", "10.77.0.2:9")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("what the pod answers ends the capture"))
	})
	if left := capture.Until(t, "what the pod answers"); len(left) > 0 {
		t.Errorf("left the pod: %q", left)
	}
}

// allOpen are the rows that only rules hold.
func allOpen() []string {
	return []string{
		"E1 TCP to an IPv4 address", "E1 TCP to an IPv6 address", "E2 ICMP over IPv4", "E2 ICMP over IPv6", "E2 UDP and QUIC over IPv4",
		"E2 UDP and QUIC over IPv6", "E2 an answer to an address that is elsewhere", "E2 what is redirected, out of an interface", "E2 DNS over UDP at a server of one's own", "E2 DNS over TCP at a server of one's own",
		"E2 a name outside the policy at the configured resolver", "E4 the engine's metrics and administration",
	}
}

// An ephemeral container has an environment and files of its own.
func TestPodDoctorLooksAtTheAgentsProcess(t *testing.T) {
	rules := podRules()
	s := newInjected(t, &rules)
	agent := s.agent(netns.Container{UID: 1000}).Command(t, "wait")
	stdin, err := agent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Do(func() { err = agent.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = agent.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	pid := fmt.Sprint(agent.Process.Pid)
	bare := netns.Container{UID: 1000, Environ: []string{"PATH=/bin"}}
	if out, code := s.Run(t, bare, "aegrail-engine", "doctor", "--pid", pid, "--host", "api.allowed.test"); code != 0 || !strings.Contains(out, "verifies the engine's certificate for api.allowed.test") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if out, code := s.Run(t, bare, "aegrail-engine", "doctor"); code != 1 || !strings.Contains(out, "SSL_CERT_FILE is not set") {
		t.Errorf("without --pid: exit code %d\n%s", code, out)
	}
	if out, code := s.Run(t, netns.Container{UID: 1001}, "aegrail-engine", "doctor", "--pid", pid); code != 2 || !strings.Contains(out, "run as the user of that process") {
		t.Errorf("as another user: exit code %d\n%s", code, out)
	}
}

func TestPodDoctorFindsThatThereAreNoRules(t *testing.T) {
	s := newInjected(t, nil)
	_, openRows, enforced, code := s.examined(netns.Container{UID: 1000}, "--timeout", "300ms")
	if !slices.Equal(openRows, allOpen()) || enforced || code != 1 {
		t.Errorf("exit code %d, enforced: %v, open:\n%s", code, enforced, strings.Join(openRows, "\n"))
	}
	out, code := s.Run(t, s.agent(netns.Container{UID: 1000}), "aegrail-engine", "doctor", "--timeout", "300ms")
	if code != 1 || !strings.HasSuffix(out, "\n"+unheld+"\n") || !strings.Contains(out, "change: run `aegrail-init serve`") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestPodDoctorFindsEachHole(t *testing.T) {
	agent := netns.Container{UID: 1000}
	for name, c := range map[string]struct {
		rules func(*redirect.Rules)
		agent netns.Container
		args  []string
		want  []string
	}{
		"a range is free": {func(r *redirect.Rules) { r.Free = append(r.Free, netip.MustParsePrefix("192.0.2.0/24")) }, agent, nil,
			[]string{"E1 TCP to an IPv4 address", "E2 ICMP over IPv4", "E2 UDP and QUIC over IPv4"}},
		"IPv6 is free": {func(r *redirect.Rules) { r.Free = append(r.Free, netip.MustParsePrefix("2001:db8::/32")) }, agent, nil,
			[]string{"E1 TCP to an IPv6 address", "E2 ICMP over IPv6", "E2 UDP and QUIC over IPv6", "E2 an answer to an address that is elsewhere"}},
		"metrics are not protected":         {func(r *redirect.Rules) { r.Protected = nil }, agent, nil, []string{"E4 the engine's metrics and administration"}},
		"privilege escalation":              {nil, netns.Container{UID: 1000, Escalation: true}, nil, []string{"E3 capabilities, and programs that give them"}},
		"root with SETUID":                  {nil, netns.Container{Caps: "-all,+setuid"}, nil, []string{"E3 capabilities, and programs that give them", "E3 becoming the engine's user"}},
		"root with NET_ADMIN":               {nil, netns.Container{Caps: "-all,+net_admin"}, nil, []string{"E3 capabilities, and programs that give them", "E3 changing the redirect rules", "E3 the mark of the engine's sockets"}},
		"root with NET_RAW":                 {nil, netns.Container{Caps: "-all,+net_raw"}, nil, []string{"E3 capabilities, and programs that give them", "E3 raw sockets", "E3 the mark of the engine's sockets"}},
		"root with SYS_PTRACE":              {nil, netns.Container{Caps: "-all,+sys_ptrace"}, nil, []string{"E3 capabilities, and programs that give them", "E3 the engine's process"}},
		"one variable names another bundle": {nil, netns.Container{UID: 1000, Environ: []string{"NODE_EXTRA_CA_CERTS=/etc/ssl/other.pem"}}, nil, []string{"P1 the trust bundle in the environment"}},
		"the bundle is not there":           {nil, netns.Container{UID: 1000, Environ: []string{"SSL_CERT_FILE="}}, nil, []string{"P1 the trust bundle in the environment"}},
		"a proxy that is not the engine":    {nil, netns.Container{UID: 1000, Environ: []string{"https_proxy=http://proxy.example:3128"}}, nil, []string{"P2 the proxy variables"}},
		"the bundle is another engine's":    {nil, agent, []string{"--host", "other.test"}, []string{"P1 the trust bundle in the environment"}},
	} {
		t.Run(name, func(t *testing.T) {
			rules := podRules()
			if c.rules != nil {
				c.rules(&rules)
			}
			s := newInjected(t, &rules)
			if _, openRows, _, code := s.examined(c.agent, append(c.args, "--timeout", "300ms")...); !slices.Equal(openRows, c.want) || (code == 1) != (len(c.want) > 0) {
				t.Errorf("exit code %d, open:\n%s", code, strings.Join(openRows, "\n"))
			}
		})
	}
}
