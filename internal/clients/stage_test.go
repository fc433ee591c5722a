package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds everything that a test waits for. It is long since nothing
// comes near it unless it hangs.
const patience = 90 * time.Second

// stage is one test's engine runs, which write one log each, and what the
// clients made of them.
type stage struct {
	t    *testing.T
	dir  string   // the clients' working directory and home
	logs []string // files
}

// newStage begins with origins that have seen nothing.
func newStage(t *testing.T) *stage {
	t.Helper()
	if _, err := suite.origins.Seen(); err != nil {
		t.Fatal(err)
	}
	suite.origins.Captured()
	return &stage{t: t, dir: t.TempDir()}
}

func (s *stage) file(name string) string { return filepath.Join(s.dir, name) }

// write makes a file in the working directory and returns its path.
func (s *stage) write(name string, data []byte) string {
	s.t.Helper()
	name = s.file(name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// uploaded is what nginx stored for a URL below /uploads.
func (s *stage) uploaded(url string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(suite.origins.Uploads, path.Base(url)))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *stage) newLog() string {
	name := s.file(fmt.Sprintf("audit-%d.log", len(s.logs)))
	s.logs = append(s.logs, name)
	return name
}

// environment is the least that programs need; nothing of the developer's own
// settings gets to the clients.
func (s *stage) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir, "LANG=C.UTF-8"}
}

// ran is how a client ended.
type ran struct {
	t              *testing.T
	stdout, stderr string // the client's own
	engine         string // what exec said beside it
	code           int
}

// run runs a program and returns how it ended.
func (s *stage) run(args ...string) ran {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.environment()
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := ran{t: s.t, stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v %v\n%s", strings.Join(args, " "), err, ctx.Err(), r.all())
	}
	return r
}

// exec runs a client with `aegrail-engine exec`. The client's standard error
// is kept apart from the engine's, which has the reasons too.
func (s *stage) exec(args ...string) ran {
	s.t.Helper()
	own := s.file("stderr")
	line := append([]string{
		suite.engine, "exec", "--policy", suite.policy, "--audit-file", s.newLog(), "--upstream-roots", suite.roots, "--",
		"sh", "-c", `exec "$@" 2>"$0"`, own,
	}, args...)
	r := s.run(line...)
	data, err := os.ReadFile(own)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, r.all())
	}
	r.engine, r.stderr = r.stderr, string(data)
	return r
}

func (r ran) all() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s\n--- stderr\n%s\n--- engine\n%s", r.code, r.stdout, r.stderr, r.engine)
}

// ok fails the test unless the client ended well.
func (r ran) ok() ran {
	r.t.Helper()
	if r.code != 0 {
		r.t.Fatalf("the client failed: %s", r.all())
	}
	return r
}

// stderrHas wants words in what the client itself told its user.
func (r ran) stderrHas(words ...string) {
	r.t.Helper()
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			r.t.Errorf("%q is not in the client's standard error: %s", word, r.all())
		}
	}
}

// engineHas wants a denial in what exec told its user.
func (r ran) engineHas(words ...string) {
	r.t.Helper()
	for _, word := range words {
		if !strings.Contains(r.engine, word) {
			r.t.Errorf("%q is not in what exec said: %s", word, r.all())
		}
	}
}

// daemon is `aegrail-engine serve`.
type daemon struct {
	addr string // of the proxy, HOST:PORT
	ca   string // the file that clients are to trust
	stop func()
}

// The ports of serve. The network is the suite's own.
const (
	proxyAddr = "127.0.0.1:8080"
	adminAddr = "127.0.0.1:9090"
)

// serve starts the engine as a service, with more flags. stop ends it, which is the end of its log.
func (s *stage) serve(more ...string) *daemon {
	s.t.Helper()
	ca := s.file("ca")
	if _, err := os.Stat(ca); err != nil {
		s.run(suite.engine, "ca", "init", "--dir", ca).ok()
	}
	cmd := exec.Command(suite.engine, append([]string{"serve", "--policy", suite.policy, "--ca-dir", ca, "--audit-file", s.newLog(),
		"--upstream-roots", suite.roots, "--listen", proxyAddr, "--admin-listen", adminAddr}, more...)...)
	cmd.Dir, cmd.Env = s.dir, s.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	d := &daemon{addr: proxyAddr, ca: filepath.Join(ca, "ca.crt")}
	d.stop = func() {
		s.t.Helper()
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				s.t.Errorf("serve ended: %v\n%s", err, &output)
			}
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
			s.t.Errorf("serve does not end\n%s", &output)
		}
		if s.t.Failed() {
			s.t.Logf("serve:\n%s", &output)
		}
	}
	s.t.Cleanup(d.stop)
	s.ready(ended, &output)
	return d
}

// ready waits until /readyz says yes.
func (s *stage) ready(ended chan error, output fmt.Stringer) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		resp, err := http.Get("http://" + adminAddr + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-ended:
			ended <- err
			s.t.Fatalf("serve ended: %v\n%s", err, output)
		case <-late:
			s.t.Fatalf("serve is not ready: %v\n%s", err, output)
		case <-tick.C:
		}
	}
}
