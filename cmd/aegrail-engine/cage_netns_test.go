//go:build netns

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// The tests here need a kernel that lets this user have namespaces, and fail
// where it does not: `make test-netns`, as root and as an ordinary user.

// cage is a directory with a policy, an origin on this machine's loopback, and
// a way to run a command there.
type cage struct {
	t      *testing.T
	dir    string
	port   string // of the origin, which is allowed as localhost
	root   string // file of its root
	before func(*exec.Cmd)
}

const cagePolicy = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: p}
spec:
  rules:
    - {name: local, hosts: [localhost], ports: [%s], addresses: [127.0.0.0/8, "::1/128"], methods: [POST], paths: [/ok]}
    - {name: named, hosts: [api.allowed.test]}
`

func newCage(t *testing.T) *cage {
	t.Helper()
	heedSignals(t)
	c := &cage{t: t, dir: t.TempDir()}
	root := enginetest.NewRoot(t, "cage origin root")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "origin saw %s %s %s", r.Method, r.URL.Path, body)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{root.Certificate(t, "localhost")}}))
	t.Cleanup(func() { server.Close() })
	_, c.port, _ = net.SplitHostPort(ln.Addr().String())
	c.root = c.write("root.pem", string(root.PEM))
	c.write("policy.yaml", fmt.Sprintf(cagePolicy, c.port))
	return c
}

func (c *cage) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// result is what came of a run.
type result struct {
	stdout, stderr string
	code           int
}

// engine is exec with isolation required and a command, without the proxy
// variables unless the command is a shell's that puts them back.
func (c *cage) engine(args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := exec.Command("aegrail-engine", append([]string{"exec", "--require-isolation", "--policy", "policy.yaml", "--upstream-roots", c.root, "--",
		"env", "-u", "HTTPS_PROXY", "-u", "HTTP_PROXY", "-u", "https_proxy", "-u", "http_proxy", "-u", "ALL_PROXY", "-u", "all_proxy"}, args...)...)
	cmd.Dir = c.dir
	if c.before != nil {
		c.before(cmd)
	}
	return cmd
}

func (c *cage) run(args ...string) result {
	c.t.Helper()
	cmd := c.engine(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if strings.Contains(r.stderr, "NOT ISOLATED") || strings.Contains(r.stderr, "cannot isolate") {
		c.t.Fatalf("not isolated:\n%s", r.stderr)
	}
	return r
}

// attack runs the attacker and returns what it says came of it.
func (c *cage) attack(args ...string) string {
	c.t.Helper()
	r := c.run(append([]string{"attack"}, args...)...)
	if r.code != 0 {
		c.t.Fatalf("attack %q: %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// want fails for a line of said that is not as wanted. Each of want is the
// beginning of one line.
func (c *cage) want(said string, want ...string) {
	c.t.Helper()
	lines := strings.Split(strings.TrimRight(said, "\n"), "\n")
	for i, line := range lines {
		if i >= len(want) || !strings.HasPrefix(line, want[i]) {
			c.t.Errorf("got\n%s\nwant\n%s", said, strings.Join(want, "\n"))
			return
		}
	}
	if len(lines) != len(want) {
		c.t.Errorf("got\n%s\nwant\n%s", said, strings.Join(want, "\n"))
	}
}

// nested runs the attacker with every capability over a user namespace of its
// own. Root cannot even have that: its user may not be mapped without a
// capability that is gone (user_namespaces(7), CAP_SETFCAP).
func (c *cage) nested(args []string, want ...string) {
	c.t.Helper()
	if os.Getuid() == 0 {
		want = []string{"nested: fork/exec /proc/self/exe: no space left on device"}
	}
	c.want(c.attack(append([]string{"nested"}, args...)...), want...)
}

// records are the log's, verified, as "event kind host reason".
func (c *cage) records() []string {
	c.t.Helper()
	file := filepath.Join(c.dir, defaultExecLog)
	if _, err := audit.Verify([]string{file}, audit.VerifyOptions{}); err != nil {
		c.t.Errorf("the log does not verify: %v", err)
	}
	return recordsOf(c.t, file)
}

// recordsOf are the decisions in a log, as "event phase kind host reason".
func recordsOf(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	err = audit.Read(bytes.NewReader(data), func(e *audit.Entry) error {
		if strings.HasPrefix(e.Event, "egress") {
			all = append(all, strings.Join([]string{e.Event, e.Phase, e.Kind, e.Host, e.Reason}, " "))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (c *cage) wantRecords(want ...string) {
	c.t.Helper()
	got := c.records()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		c.t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
