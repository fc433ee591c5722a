package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"
)

// profiles serves pprof on a unix socket that only our own user may open. A
// heap profile names hosts and a CPU profile can be asked to run for long:
// neither is for a port that agents might reach.
type profiles struct {
	path   string
	server *http.Server
	ln     net.Listener
}

// listenProfiles makes the socket in a private directory and moves it into
// place when its mode is set, so that nobody can connect in between. A socket
// that a killed process left behind is replaced.
func listenProfiles(path string) (*profiles, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("--pprof-socket %s exists and is no socket: choose another path", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".pprof-")
	if err != nil {
		return nil, fmt.Errorf("--pprof-socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "s")
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "unix", made)
	if err != nil {
		return nil, fmt.Errorf("--pprof-socket: %w", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // its name will be path
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("--pprof-socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	// No /debug/pprof/cmdline: it prints the arguments, among them a proxy's password.
	return &profiles{path: path, ln: ln, server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}, nil
}

func (p *profiles) serve() error {
	if err := p.server.Serve(p.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving profiles: %w", err)
	}
	return nil
}

func (p *profiles) close() {
	p.server.Close()
	p.ln.Close()
	_ = os.Remove(p.path)
}
