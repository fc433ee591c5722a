//go:build netns

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func TestIsolatedExitCodesAreTheCommands(t *testing.T) {
	c := newCage(t)
	for script, want := range map[string]int{"exit 7": 7, "kill -KILL $$": 137, "kill -TERM $$": 143, "kill -SEGV $$": 139, "exit 255": 255, "true": 0} {
		if r := c.run("sh", "-c", script); r.code != want {
			t.Errorf("%s: %d, want %d\n%s", script, r.code, want, r.stderr)
		}
	}
	for _, line := range []string{`"enforcement":"isolated"`} {
		data, err := os.ReadFile(filepath.Join(c.dir, defaultExecLog))
		if err != nil || !strings.Contains(string(data), line) {
			t.Errorf("the log does not say %s (%v)", line, err)
		}
	}
}

func TestIsolatedDoctorFindsNothingOpen(t *testing.T) {
	c := newCage(t)
	r := c.run("aegrail-engine", "doctor", "--policy", "policy.yaml", "--host", "api.allowed.test")
	if r.code != 0 || strings.Contains(r.stdout, "OPEN") || !strings.Contains(r.stdout, "127.0.0.1:14443 hangs up") || !strings.HasSuffix(r.stdout, "27 held, 0 open\n") {
		t.Errorf("%d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

func TestIsolatedWithoutIPv6(t *testing.T) {
	c := newCage(t)
	c.before = func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"forbid", "ipv6"}, cmd.Args...)
		cmd.Path, cmd.Err = exec.LookPath("forbid")
	}
	c.want(c.attack("get", "POST", "https://localhost:"+c.port+"/ok", "203.0.113.9:"+c.port), "get: 200 origin saw POST /ok hello")
	r := c.run("lookup", "udp", "9.9.9.9:53", "api.allowed.test.")
	c.want(r.stdout, "198.19.149.171")
}

func TestIsolatedFilesKeepTheirOwner(t *testing.T) {
	c := newCage(t)
	c.run("sh", "-c", "echo made > made; id -u > uid; id -g > gid")
	info, err := os.Stat(filepath.Join(c.dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
		t.Errorf("the file is %d:%d's", st.Uid, st.Gid)
	}
	for name, want := range map[string]int{"uid": os.Getuid(), "gid": os.Getgid()} {
		if data, err := os.ReadFile(filepath.Join(c.dir, name)); err != nil || strings.TrimSpace(string(data)) != fmt.Sprint(want) {
			t.Errorf("%s inside is %s, want %d (%v)", name, data, want, err)
		}
	}
}

func TestIsolatedCommandEndsWithItsEngine(t *testing.T) {
	c := newCage(t)
	cmd := c.engine("attack", "orphan", "now", "out", "fds")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := filepath.Join(c.dir, "out.done")
	if !enginetest.Eventually(func() bool { _, err := os.Stat(done); return err == nil }) {
		t.Fatal("the command did not start")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	f, err := os.Open(done)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !enginetest.Eventually(func() bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }) {
		t.Error("the command lives on without its engine")
	}
}

func TestIsolatedCommandGetsSignals(t *testing.T) {
	c := newCage(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP} {
		started := filepath.Join(c.dir, "started")
		_ = os.Remove(started)
		name := strings.TrimPrefix(unix.SignalName(s), "SIG")
		cmd := c.engine("sh", "-c", "trap 'exit 9' "+name+"; echo > started; while :; do sleep 0.02; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !enginetest.Eventually(func() bool { _, err := os.Stat(started); return err == nil }) {
			t.Fatal("the command did not start")
		}
		_ = cmd.Process.Signal(s)
		// A command that does not hear the signal must not hold the tests up.
		unheard := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if !unheard.Stop() {
			t.Errorf("%s did not reach the command, or is ignored", name)
		} else if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

// A signal to one's own process group passes by pid namespaces.
func TestE03SignalsToTheGroupStayInside(t *testing.T) {
	c := newCage(t)
	c.before = func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} } // no terminal
	r := c.run("sh", "-c", "kill -KILL 0")
	if r.code != 137 || !strings.Contains(r.stderr, "0 allowed, 0 denied") {
		t.Errorf("exit code %d\n%s", r.code, r.stderr)
	}
}

// openTerminal returns the two ends of a new terminal.
func openTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

func TestIsolatedCommandAtATerminalStopsGoesOnAndIsInterrupted(t *testing.T) {
	c := newCage(t)
	user, program := openTerminal(t)
	inner := c.engine("sh", "-c", `trap 'echo caught; exit 9' INT; trap 'echo goes on' CONT; echo ready; while :; do sleep 0.02; done`)
	cmd := exec.Command("session", inner.Args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.dir, program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close()
	seen := make(chan string, 100)
	go func() {
		defer close(seen)
		buf := make([]byte, 4096)
		for {
			n, err := user.Read(buf)
			if err != nil {
				return
			}
			seen <- string(buf[:n])
		}
	}()
	var all strings.Builder
	until := func(text string) {
		t.Helper()
		for !strings.Contains(all.String(), text) {
			piece, ok := <-seen
			if !ok {
				t.Fatalf("the terminal ended before %q:\n%s", text, all.String())
			}
			all.WriteString(piece)
		}
	}
	until("ready")
	_, _ = user.WriteString("\x1a")
	until("stopped by SIGTSTP")
	until("goes on")
	_, _ = user.WriteString("\x03")
	until("ended with 9")
	_ = cmd.Wait()
	if n := strings.Count(all.String(), "caught"); n != 1 {
		t.Errorf("interrupted %d times:\n%s", n, all.String())
	}
}
