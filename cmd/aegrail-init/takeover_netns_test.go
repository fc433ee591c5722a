//go:build netns

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

// becomeProgram tries to become the user of its argument.
func becomeProgram(args []string) {
	uid, _ := strconv.Atoi(args[0])
	say("setresuid", syscall.Setresuid(uid, uid, uid))
	say("setresgid", syscall.Setresgid(uid, uid, uid))
	say("setfsuid", func() error {
		_, _ = unix.SetfsuidRetUid(uid)
		if now, _ := unix.SetfsuidRetUid(-1); now != uid {
			return syscall.EPERM
		}
		return nil
	}())
	name := filepath.Join(args[1], "owned")
	say("chown", func() error {
		err := os.WriteFile(name, nil, 0o600)
		if err == nil {
			err = os.Chown(name, uid, uid)
		}
		return err
	}())
	for _, path := range args[2:] {
		say("run "+path, syscall.Exec(path, []string{path, "-u"}, nil))
	}
}

func TestE03NoUserBecomesTheEngine(t *testing.T) {
	p := pod(t)
	dir := volume(t)
	// A program of the engine's user that makes whoever runs it that user.
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	setuid := filepath.Join(dir, "setuid")
	if err := errors.Join(os.WriteFile(setuid, id, 0o700), os.Chown(setuid, engineUID, engineUID), os.Chmod(setuid, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for name, c := range agents() {
		if c.UID == engineUID {
			continue
		}
		t.Run(name, func(t *testing.T) {
			want(t, run1(t, p.Pod, c, "become", strconv.Itoa(engineUID), volume(t), setuid),
				"setresuid: EPERM", "setresgid: EPERM", "setfsuid: EPERM", "chown: EPERM", strconv.Itoa(int(c.UID)))
		})
	}
	// What holds is the container's settings, not the rules: without them it is so.
	c := netns.Container{UID: agentUID, Escalation: true}
	want(t, run1(t, p.Pod, c, "become", strconv.Itoa(engineUID), dir, setuid), "setresuid: EPERM", "setresgid: EPERM", "setfsuid: EPERM", "chown: EPERM", strconv.Itoa(engineUID))
	c = netns.Container{Caps: "-all,+setuid,+setgid"}
	if out := run1(t, p.Pod, c, "become", strconv.Itoa(engineUID), dir); !strings.HasPrefix(out, "setresuid: WORKED\n") {
		t.Errorf("root with SETUID: %s", out)
	}
}

// halfOpen leaves the kernel of the pod with a connection of the engine's that
// conntrack takes for open and that has no socket at either end: what there is
// for minutes where a server that has been closed to does not close. It returns
// its two ends.
func halfOpen(t *testing.T, p *held) (from, to *unix.SockaddrInet4) {
	t.Helper()
	from, to = &unix.SockaddrInet4{Port: 40001, Addr: p.Pod4.As4()}, &unix.SockaddrInet4{Port: 7100, Addr: p.Cluster4.As4()}
	var err error
	var ln, client, server int
	silently := func(fd int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1), unix.Close(fd))
	}
	p.Cluster.Do(func() {
		ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		err = errors.Join(err, unix.Bind(ln, to), unix.Listen(ln, 1))
	})
	p.Do(func() {
		var serr error
		client, serr = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		err = errors.Join(err, serr, mark(client), unix.Bind(client, from), unix.Connect(client, to))
	})
	p.Cluster.Do(func() {
		var aerr error
		server, _, aerr = unix.Accept(ln)
		err = errors.Join(err, aerr, silently(server))
	})
	p.Do(func() { err = errors.Join(err, silently(client)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(ln) })
	return from, to
}

func TestE03NobodyTakesAConnectionOverThatTheEngineHasLeft(t *testing.T) {
	p := pod(t)
	from, to := halfOpen(t, p)
	capture := p.Capture(t)
	p.Do(func() {
		fd := as(agentUID, func() int {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			return fd
		})
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, from); err != nil {
			t.Error(err)
		}
		if err := unix.Connect(fd, to); err == nil {
			t.Error("connected at once")
		}
	})
	want(t, p.engine("udp", "10.77.0.1:7000"), "10.77.0.1:7000: world")
	if left := capture.Until(t, engineAsks); len(left) > 0 {
		t.Errorf("left the pod: %q", left)
	}
}
