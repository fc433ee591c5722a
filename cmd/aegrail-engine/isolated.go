package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/isolation"
)

// isolatedName is the command that exec starts in COMMAND's namespaces.
const isolatedName = "exec-isolated"

// isolatedCommand is for exec's own use: it holds a control socket.
func isolatedCommand() *cobra.Command {
	return &cobra.Command{
		Use: isolatedName + " STAGE", Short: "What exec starts in the namespaces of a command", Hidden: true,
		Args: takes(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			code, err := isolation.Child(args[0], os.Environ())
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
}

func cannotIsolate(why error) error {
	return fmt.Errorf("cannot isolate COMMAND: %s\n  leave --require-isolation out to run it all the same", oneLine(why.Error()))
}

// laptopListeners are where COMMAND reaches the engine.
type laptopListeners struct {
	forward net.Listener
	inside  *isolation.Listeners // nil where COMMAND is not isolated
}

// forwardAddr is the forward proxy's address as COMMAND sees it.
func (l *laptopListeners) forwardAddr() netip.AddrPort {
	if l.inside != nil {
		return isolation.ForwardAddr()
	}
	return (&listeners{forward: l.forward}).addresses()[0]
}

func (l *laptopListeners) addresses() []netip.AddrPort {
	if l.inside != nil {
		return l.inside.Addresses()
	}
	return []netip.AddrPort{l.forwardAddr()}
}

func (l *laptopListeners) close() {
	if l.inside != nil {
		l.inside.Close()
	} else if l.forward != nil {
		_ = l.forward.Close()
	}
}

// isolate gets the engine's ports inside COMMAND's namespaces, or one of this
// machine's where there are none.
func (l *laptop) isolate(o *execOptions, logger *slog.Logger) error {
	if l.notIsolated == nil {
		files, err := l.files(o, logger)
		if err != nil {
			return err
		}
		l.listeners.inside, l.notIsolated = l.cage.Prepare(files)
	}
	switch {
	case l.notIsolated == nil:
		l.listeners.forward = l.listeners.inside.Forward
		return nil
	case o.requireIsolation:
		for _, name := range l.made {
			_ = os.Remove(name) // nothing began, so nothing is left
		}
		return cannotIsolate(l.notIsolated)
	}
	l.listeners.inside = nil
	var err error
	l.listeners.forward, err = listen("the proxy", "127.0.0.1:0")
	return err
}

// files says what COMMAND sees of ours. What is to be protected has to be there
// before, so the log and its key are made now; what cannot be made is said when
// the log is opened.
func (l *laptop) files(o *execOptions, logger *slog.Logger) (isolation.Files, error) {
	f := isolation.Files{ResolvConf: filepath.Join(l.dir, "resolv.conf")}
	if err := os.WriteFile(f.ResolvConf, []byte("# aegrail-engine answers, wherever a query is sent\nnameserver 127.0.0.1\n"), 0o644); err != nil { //nolint:gosec // for COMMAND to read
		return f, fmt.Errorf("writing COMMAND's resolv.conf: %w", err)
	}
	key := o.auditFile + keySuffix
	for _, name := range []string{o.auditFile, key} {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			l.made = append(l.made, name)
		}
	}
	if log, err := os.OpenFile(o.auditFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err == nil {
		log.Close()
		if _, err := auditSigner(key, logger); err == nil {
			f.Hidden = append(f.Hidden, absolute(key))
		}
	}
	for _, name := range []string{o.policy, o.auditFile} {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			f.ReadOnly = append(f.ReadOnly, absolute(name))
		}
	}
	return f, nil
}

// absolute is name from the root; as it is where this directory has no name.
func absolute(name string) string {
	if full, err := filepath.Abs(name); err == nil {
		return full
	}
	return name
}
