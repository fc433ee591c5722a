package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	engineAddr = "127.0.0.1:8080"
	adminAddr  = "127.0.0.1:9090"
	rotateSize = "4Mi"
)

// engine is the program under test.
type engine struct {
	bin, dir string
	cmd      *exec.Cmd
	exited   chan struct{}
	roots    *x509.CertPool // of every authority that it will have
	authors  []*x509.Certificate
	said     *os.File
	key      string // with which its log's checkpoints verify

	mu        sync.Mutex
	revisions []inForce
	issuers   []inForce
}

// inForce is what an engine went by from its being written until the next was
// seen in force. The last has no end.
type inForce struct {
	name        string // the revision, or the subject key of the authority
	flips       bool   // whether a policy allows what flips
	from, until time.Time
}

const policyText = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: soak}
spec:
  rules:
    - {name: bodies-%d, hosts: [good.soak.test, h1.soak.test, false.soak.test, slow.soak.test, gone.soak.test], methods: [GET, POST], paths: ["/echo/**", "/up/**", "/down/**", "/sse/**"], addresses: [127.0.0.0/8]}
    - {name: faults, hosts: [fault.soak.test], methods: [POST], paths: ["/reset/**", "/stall/**", "/cut/**"], addresses: [127.0.0.0/8]}
    - {name: sockets, hosts: [good.soak.test], methods: [GET], paths: ["/ws/**"], websocket: true, addresses: [127.0.0.0/8]}
    - {name: grpc, hosts: [grpc.soak.test], methods: [POST], paths: ["/soak.Unary/*", "/soak.Stream/*"], addresses: [127.0.0.0/8]}
    - name: judged
      hosts: [good.soak.test]
      methods: [POST]
      paths: ["/judged/**"]
      addresses: [127.0.0.0/8]
      when: 'request.body.json.model == "good"'
      limits: {requestBytes: 4Ki}
`

const flipRule = `    - {name: flip, hosts: [good.soak.test, h1.soak.test], methods: [POST], paths: ["/flip/**"], addresses: [127.0.0.0/8]}
`

const authorities = 10 // that take turns

// startEngine makes its authorities and its policy, starts it and waits until it
// is ready.
func startEngine(ctx context.Context, bin, dir string, upstream []byte) (*engine, error) {
	e := &engine{bin: bin, dir: dir, exited: make(chan struct{}), roots: x509.NewCertPool()}
	if err := os.WriteFile(e.path("origins.pem"), upstream, 0o600); err != nil {
		return nil, err
	}
	for i := range authorities {
		if err := e.makeAuthority(ctx, i); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(os.Mkdir(e.path("ca"), 0o700), e.link(0)); err != nil {
		return nil, err
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), e.path("ca", name)); err != nil {
			return nil, err
		}
	}
	if err := e.write(0, true); err != nil {
		return nil, err
	}
	var err error
	if e.said, err = os.Create(e.path("engine.log")); err != nil {
		return nil, err
	}
	began := time.Now()
	e.cmd = exec.Command(bin, "serve", "--policy", e.path("policy.yaml"), "--ca-dir", e.path("ca"), "--upstream-roots", e.path("origins.pem"), "--listen", engineAddr,
		"--admin-listen", adminAddr, "--audit-file", e.log(), "--audit-rotate-size", rotateSize, "--audit-checkpoint-interval", "2s",
		"--audit-anchor", e.path("anchor"), "--pprof-socket", e.path("pprof"))
	e.cmd.Stdout, e.cmd.Stderr = e.said, e.said
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = e.cmd.Wait() // how it ended is in what it said
		close(e.exited)
	}()
	if err := e.await(ctx, func() bool { _, err := e.ask("/readyz"); return err == nil }); err != nil {
		return nil, fmt.Errorf("the engine is not ready: %w: %s", err, e.lastWords())
	}
	key, err := e.ask("/audit/key")
	if err != nil {
		return nil, err
	}
	e.key = strings.TrimSpace(key)
	rev, err := e.revision()
	e.revisions = []inForce{{name: rev, flips: true, from: began}}
	e.issuers = []inForce{{name: e.issuer(0), from: began}}
	return e, err
}

func (e *engine) path(names ...string) string {
	return filepath.Join(append([]string{e.dir}, names...)...)
}

func (e *engine) log() string { return e.path("audit.jsonl") }

func (e *engine) makeAuthority(ctx context.Context, i int) error {
	dir := e.path(fmt.Sprint("authority", i))
	if out, err := exec.CommandContext(ctx, e.bin, "ca", "init", "--dir", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("making an authority: %w: %s", err, out)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return err
	}
	if !e.roots.AppendCertsFromPEM(pem) {
		return errors.New("an authority has no root")
	}
	cert, err := parsePEM(pem)
	e.authors = append(e.authors, cert)
	return err
}

// link puts an authority where the engine looks for it, as kubelet does.
func (e *engine) link(i int) error {
	next := e.path("ca", "..next")
	return errors.Join(os.Symlink(filepath.Join("..", fmt.Sprint("authority", i)), next), os.Rename(next, e.path("ca", "..data")))
}

// write puts another policy in place; n makes its revision its own.
func (e *engine) write(n int, flips bool) error {
	text := fmt.Sprintf(policyText, n)
	if flips {
		text += flipRule
	}
	next := e.path("policy.next")
	return errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, e.path("policy.yaml")))
}

// await polls until cond holds.
func (e *engine) await(ctx context.Context, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-e.exited:
			return errors.New("the engine has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (e *engine) ask(path string) (string, error) {
	return get(&http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+adminAddr+path)
}

// profile asks on the socket for pprof.
func (e *engine) profile(path string) (string, error) {
	return get(&http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.path("pprof"))
	}}}, "http://pprof/debug/pprof/"+path)
}

func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

func (e *engine) revision() (string, error) {
	text, err := e.ask("/metrics")
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`(?m)^aegrail_policy_info\{revision="([^"]+)"\} 1$`).FindStringSubmatch(text)
	if m == nil {
		return "", errors.New("/metrics names no revision")
	}
	return m[1], nil
}

// metric is the value of a counter, 0 if it is not there.
func (e *engine) metric(line string) (float64, error) {
	text, err := e.ask("/metrics")
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, line+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, nil
}

// reloadPolicy puts the n-th policy in force and returns when it is.
func (e *engine) reloadPolicy(ctx context.Context, n int, flips bool) error {
	before, err := e.revision()
	if err != nil {
		return err
	}
	written := time.Now()
	if err := e.write(n, flips); err != nil {
		return err
	}
	now := before
	if err := e.await(ctx, func() bool { now, err = e.revision(); return err == nil && now != before }); err != nil {
		return fmt.Errorf("a policy that was written is not in force: %w", errors.Join(err, ctx.Err()))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revisions[len(e.revisions)-1].until = time.Now()
	e.revisions = append(e.revisions, inForce{name: now, flips: flips, from: written})
	return nil
}

const caReloads = `aegrail_ca_reloads_total{result="success"}`

// reloadCA puts the next authority in force and returns when it is.
func (e *engine) reloadCA(ctx context.Context, n int) error {
	before, err := e.metric(caReloads)
	if err != nil {
		return err
	}
	e.mu.Lock() // from now on leaves may be its
	e.issuers = append(e.issuers, inForce{name: e.issuer(n), from: time.Now()})
	e.mu.Unlock()
	if err := e.link(n % authorities); err != nil {
		return err
	}
	if err := e.await(ctx, func() bool { now, err := e.metric(caReloads); return err == nil && now > before }); err != nil {
		return fmt.Errorf("an authority that was written is not in force: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.issuers[len(e.issuers)-2].until = time.Now()
	return nil
}

func (e *engine) issuer(n int) string { return string(e.authors[n%authorities].Raw) }

// madeBy checks that an authority in force made the leaf of a new connection.
func (e *engine) madeBy(st tls.ConnectionState) error {
	chain := st.VerifiedChains[0]
	author := string(chain[len(chain)-1].Raw)
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.ContainsFunc(between(e.issuers, time.Now().Add(-handshakeTime), time.Now()), func(f inForce) bool { return f.name == author }) {
		return nil
	}
	return errors.New("the leaf is of an authority that is not in force")
}

// handshakeTime is how long a leaf may be on its way to a client.
const handshakeTime = 30 * time.Second

// between are what was in force at any time of a span.
func between(all []inForce, from, to time.Time) (found []inForce) {
	for _, f := range all {
		if !f.from.After(to) && (f.until.IsZero() || !f.until.Before(from)) {
			found = append(found, f)
		}
	}
	return found
}

// stop ends the engine as a signal does.
func (e *engine) stop() error {
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	late := time.AfterFunc(time.Minute, func() { _ = e.cmd.Process.Kill() })
	<-e.exited
	late.Stop()
	if code := e.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the engine ended with %d: %s", code, e.lastWords())
	}
	return nil
}

func (e *engine) lastWords() string {
	data, _ := os.ReadFile(e.path("engine.log")) // what there is
	return string(bytes.TrimSpace(data[max(0, len(data)-2000):]))
}

// resident is what the process has in memory, in bytes.
func (e *engine) resident() int64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid)) // a process that ended has none
	for l := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// goroutines are how many there are, by the functions on their stacks.
func (e *engine) goroutines() (map[string]int, error) {
	text, err := e.profile("goroutine?debug=1")
	if err != nil {
		return nil, err
	}
	return stacks(text), nil
}

// stacks reads a goroutine profile in its text form.
func stacks(text string) map[string]int {
	all := map[string]int{}
	for block := range strings.SplitSeq(text, "\n\n") {
		n, key := 0, ""
		for l := range strings.Lines(block) {
			if f := strings.Fields(l); len(f) > 2 && f[1] == "@" {
				n, _ = strconv.Atoi(f[0]) // the profile's own format
			} else if len(f) > 2 && f[0] == "#" {
				name, _, _ := strings.Cut(f[2], "+0x")
				key += name + " < "
			}
		}
		if key != "" && !strings.Contains(key, "runtime/pprof.") {
			all[key] += n
		}
	}
	return all
}

// beyond are the stacks of now that before has not, or has fewer of.
func beyond(before, now map[string]int) map[string]int {
	more := maps.Clone(now)
	maps.DeleteFunc(more, func(key string, n int) bool { return n <= before[key] })
	return more
}

// heap is what is in use after a collection, in bytes.
func (e *engine) heap() (int64, error) {
	text, err := e.profile("heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("the heap's profile has no HeapAlloc")
	}
	return strconv.ParseInt(m[1], 10, 64)
}

// verify has the program verify its own log with all segments.
func (e *engine) verify(ctx context.Context) (string, error) {
	files, err := segmentsOf(e.log())
	if err != nil {
		return "", err
	}
	args := append([]string{"audit", "verify", "--anchor", e.path("anchor"), "--key", e.key}, files...)
	out, err := exec.CommandContext(ctx, e.bin, append(args, e.log())...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("audit verify of %d files: %w: %s", len(files)+1, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
