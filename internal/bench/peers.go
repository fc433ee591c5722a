package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// peer is a proxy that can be measured.
type peer struct {
	name    string
	version string
	connect bool     // it is told where to by CONNECT, else by SNI
	h2      bool     // it speaks HTTP/2 to clients
	small   bool     // it carries small bodies alone
	ours    bool     // the engine, another build of it, or the floor: no peer to be held against
	stdout  *os.File // nil: kept for an error message
	// command makes the process that listens on addr, forwards to l.origin and
	// keeps its own files in dir. What goes by CONNECT has one address for all
	// places, the first.
	command func(l *lab, dir string, addr [ways]string) (*exec.Cmd, error)
}

// direct is no proxy: what a client has without one.
var direct = peer{name: "direct"}

const (
	engineName  = "aegrail-engine"
	haproxyName = "HAProxy"
	reverseName = "ReverseProxy"
	goproxyName = "goproxy"
)

// policyText lets the engine pass what the harness asks for. The others are there so
// that a decision is one among several.
const policyText = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: bench}
spec:
  allowlist: [pypi.pkg.example, files.pkg.example]
  rules:
    - name: bench
      hosts: [origin.test, closing.test, "*.seen.test"]
      ports: [%[1]s]
      methods: [GET, POST, PUT]
      paths: ["/r/*", "/sse/*/*"]
      addresses: [127.0.0.0/8]
    - {name: calls, hosts: [origin.test], ports: [%[1]s], methods: [POST], paths: ["/bench.Echo/*"], addresses: [127.0.0.0/8]}
    - {name: websocket, hosts: [origin.test], ports: [%[1]s], methods: [GET], paths: [/ws], websocket: true, addresses: [127.0.0.0/8]}
    - {name: unread, hosts: [pinned.test], ports: [%[1]s], tls: passthrough, addresses: [127.0.0.0/8]}
    - {name: chat, hosts: [api.openai.com], methods: [POST], paths: [/v1/chat/completions]}
    - {name: messages, hosts: [api.anthropic.com], methods: [POST], paths: [/v1/messages, "/v1/messages/*"]}
    - {name: repositories, hosts: [api.github.com], methods: [GET], paths: ["/repos/**"]}
    - {name: no-deletes, action: deny, hosts: [origin.test, api.github.com, api.openai.com], methods: [DELETE]}
`

// ports are those of the origin, with commas.
func (o *origin) ports() string {
	var all []string
	for s := range services {
		all = append(all, o.port(s))
	}
	return strings.Join(all, ", ")
}

// enginePeer is the program as `make build` makes it.
func enginePeer(binary, version string, v variant) peer {
	return peer{name: engineName, version: version, connect: true, h2: true, ours: true,
		command: func(l *lab, dir string, addr [ways]string) (*exec.Cmd, error) {
			// In a directory of its own, since the engine watches that for changes.
			policy := filepath.Join(dir, "policy", "policy.yaml")
			if err := os.Mkdir(filepath.Dir(policy), 0o700); err != nil {
				return nil, err
			}
			if err := os.WriteFile(policy, append(fmt.Appendf(nil, policyText, l.origin.ports()), moreRules(v.rules)...), 0o600); err != nil {
				return nil, err
			}
			if err := fillLog(logFile(dir), v.log); err != nil {
				return nil, err
			}
			return l.named(binary, "serve",
				"--listen", addr[pooled], "--admin-listen", "", "--policy", policy, "--ca-dir", filepath.Join(l.dir, caDir),
				"--upstream-roots", filepath.Join(l.dir, rootFile), "--audit-file", logFile(dir),
				"--audit-durability", "written", "--agent-identity", "bench", "--log-level", "warn",
				"--pprof-socket", filepath.Join(dir, pprofSocket)), nil
		}}
}

const pprofSocket = "pprof.sock"

// A certificate that HAProxy generates comes with OpenSSL's default ciphers,
// AES-256 first, whatever bind says; preferring the client's order brings AES-128.
const haproxyText = `global
  nbthread 1
  maxconn 4096
  maxpipes 64
defaults
  mode http
  timeout connect 5s
  timeout client 5m
  timeout server 5m
  http-reuse always
`

// haproxyListen is one way through it. It is not asked for HTTP/2: with a
// certificate that it has generated it negotiates no ALPN at all.
const haproxyListen = `listen way%[1]d
  bind %[2]s ssl crt %[3]s/boot.pem generate-certificates ca-sign-file %[3]s/ca-pair.pem alpn http/1.1 curves X25519 prefer-client-ciphers ssl-min-ver TLSv1.3
  server origin %[4]s ssl verify required ca-file %[3]s/origin-root.pem sni %[5]s alpn http/1.1 ciphersuites TLS_AES_128_GCM_SHA256 ssl-min-ver TLSv1.3
`

const haproxyTunnel = `listen unread
  mode tcp
  option splice-auto
  bind %[1]s
  server origin %[2]s
`

// haproxyConfig has a way for each service: HAProxy is told by the port.
func haproxyConfig(l *lab, addr [ways]string) []byte {
	out := []byte(haproxyText)
	for _, w := range []struct {
		way service
		sni string
	}{{pooled, "str(" + host + ")"}, {closing, "str(" + closingHost + ")"}, {seen, "ssl_fc_sni"}} {
		out = fmt.Appendf(out, haproxyListen, w.way, addr[w.way], l.dir, l.origin.addr[place{service: w.way}.port()], w.sni)
	}
	return fmt.Appendf(out, haproxyTunnel, addr[pinned], l.origin.addr[pooled])
}

// haproxyPeer finds HAProxy, or installs Debian's where that can be done.
func haproxyPeer(ctx context.Context) (peer, error) {
	find := func() string {
		for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
		return ""
	}
	path := find()
	if path == "" && os.Geteuid() == 0 {
		install := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", "haproxy")
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // RUNLEVEL=1: no service is started
		if out, err := install.CombinedOutput(); err != nil {
			return peer{}, fmt.Errorf("installing haproxy: %w: %s", err, lastLine(out))
		}
		path = find()
	}
	if path == "" {
		return peer{}, errors.New("haproxy is not installed; `apt-get install haproxy` brings it")
	}
	out, err := exec.CommandContext(ctx, path, "-v").Output()
	if err != nil {
		return peer{}, fmt.Errorf("asking haproxy its version: %w", err)
	}
	version := string(regexp.MustCompile(`\d+\.\d+\.\d+\S*`).Find(out))
	return peer{name: haproxyName, version: version, command: func(l *lab, dir string, addr [ways]string) (*exec.Cmd, error) {
		conf := filepath.Join(dir, "haproxy.cfg")
		return exec.Command(path, "-db", "-f", conf), os.WriteFile(conf, haproxyConfig(l, addr), 0o600)
	}}, nil
}

// goPeer is a proxy that this program is when it is started with -role.
func goPeer(name, version string) peer {
	return peer{name: name, version: version, connect: true, h2: name == reverseName,
		command: func(l *lab, _ string, addr [ways]string) (*exec.Cmd, error) {
			return exec.Command(l.self, "-role", name, "-listen", addr[pooled], "-dir", l.dir, "-origin", l.origin.addr[pooled]), nil
		}}
}

// running is a peer's process.
type running struct {
	peer
	addr   [ways]string // by the service of a place
	dir    string
	cmd    *exec.Cmd
	said   *tail
	exited chan struct{}
}

// start runs p and waits until it takes connections.
func (l *lab) start(ctx context.Context, p peer) (*running, error) {
	if p.command == nil {
		return &running{peer: p}, nil
	}
	dir, err := os.MkdirTemp(l.dir, strings.ToLower(p.name)+"-")
	if err != nil {
		return nil, err
	}
	var addr [ways]string
	for w := range addr {
		if p.connect && w > 0 {
			addr[w] = addr[0]
		} else if addr[w], err = freePort(); err != nil {
			return nil, err
		}
	}
	cmd, err := p.command(l, dir, addr)
	if err != nil {
		return nil, err
	}
	r := &running{peer: p, addr: addr, dir: dir, cmd: cmd, said: new(tail), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r.said, r.said
	if p.stdout != nil {
		cmd.Stdout = p.stdout
	}
	if err := l.cores.startOn(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() {
		_ = cmd.Wait() // why it ended is in what it said
		close(r.exited)
	}()
	if err := r.awaitReady(ctx); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func (r *running) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute) // a long log is read first, and a large policy compiled
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		c, err := net.Dial("tcp", r.addr[pooled])
		if err == nil {
			return c.Close()
		}
		select {
		case <-retry.C:
		case <-r.exited:
			return fmt.Errorf("%s ended at once: %s", r.name, r.said)
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w: %s", r.name, ctx.Err(), r.said)
		}
	}
}

// stop ends the process and forgets its files: an audit log of a run is
// hundreds of megabytes.
func (r *running) stop() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(2*time.Second, func() { _ = r.cmd.Process.Kill() })
	<-r.exited
	late.Stop()
	_ = os.RemoveAll(r.dir)
}

func (r *running) pid() int { return r.cmd.Process.Pid }

// failed explains err by what the process said last.
func (r *running) failed(err error) error {
	if err == nil || r.cmd == nil {
		return err
	}
	if text := r.said.String(); text != "" {
		return fmt.Errorf("%s: %w; it said: %s", r.name, err, text)
	}
	return fmt.Errorf("%s: %w", r.name, err)
}

// tail keeps the end of what a process says.
type tail struct {
	mu  sync.Mutex
	end []byte
}

const tailSize = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if n := len(t.end); n > tailSize {
		t.end = append(t.end[:0], t.end[n-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
