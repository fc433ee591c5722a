package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// proxy is one that can be attacked.
type proxy struct {
	name    string
	version string
	lacks   need   // what it has not: rows that need it are n/a
	port    int    // the port that clients ask for, where it is not the upstream's
	how     string // one sentence for the table: how it was told the policy
	// command makes the process that listens on addr, finds names and rules in
	// l, and keeps its own files in dir.
	command func(l *lab, dir, addr string) (*exec.Cmd, error)
}

func (p proxy) connects() bool { return p.lacks&needConnect == 0 }

// running is a proxy's process.
type running struct {
	proxy
	addr, dir string
	cmd       *exec.Cmd
	said      *tail
	exited    chan struct{}
}

// start runs p and waits until it takes connections.
func (l *lab) start(ctx context.Context, p proxy) (*running, error) {
	dir, err := os.MkdirTemp(l.dir, "proxy-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil { // Squid gives up root
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd, err := p.command(l, dir, addr)
	if err != nil {
		return nil, err
	}
	r := &running{proxy: p, addr: addr, dir: dir, cmd: cmd, said: new(tail), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r.said, r.said
	if err := cmd.Start(); err != nil {
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
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		c, err := net.Dial("tcp", r.addr)
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

// stop ends the process. Its files stay until the run's end.
func (r *running) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(5*time.Second, func() { _ = r.cmd.Process.Kill() })
	<-r.exited
	late.Stop()
}

func (r *running) file(name string) string { return filepath.Join(r.dir, name) }

// freePort asks the kernel for a port that nothing listens on. Something else
// could take it before the proxy does; the proxy then fails to start and says so.
func freePort() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr) // ours
	return port
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
