package isolation

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initialise is init: process 1 of its namespace, which has nothing that a
// command could take over.
func initialise(c control) (int, error) {
	// The command is of the same user and may not look into the control socket.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("making init undumpable: %w", err)
	}
	syscall.CloseOnExec(controlFD)
	if err := locked(); err != nil {
		return 0, fmt.Errorf("looking at the isolation from inside: %w", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, Forwarded()...)
	if err := c.send(message{Locked: true}); err != nil {
		return 0, err
	}
	m, _, err := c.receive(time.Time{})
	if err != nil || m.Command == nil {
		return 0, fmt.Errorf("waiting for the command: %w", err)
	}
	child, err := os.StartProcess(m.Command.Path, m.Command.Args, &os.ProcAttr{
		Env: m.Command.Env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: !jobControl()},
	})
	if err != nil {
		return 0, err
	}
	if err := c.send(message{Started: true}); err != nil {
		return 0, err
	}
	go func() {
		// The engine says nothing more. Its end is the end of everything here,
		// which the kernel kills when this process ends.
		_, _, _ = c.receive(time.Time{})
		_ = child.Kill()
	}()
	go func() {
		atTerminal := terminal(os.Stdin)
		for s := range signals {
			if !(atTerminal && FromTerminal(s)) {
				_ = child.Signal(s) // it may be gone already
			}
		}
	}()
	return reap(child.Pid)
}

// jobControl reports that there is a terminal that stops and interrupts process
// groups. Then the command stays in the engine's. Elsewhere it gets one of its own:
// a signal to the whole group passes by pid namespaces, and would reach the engine
// and what its user runs beside it.
func jobControl() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return !errors.Is(err, unix.ENXIO)
}

// reap waits for every process that is left to process 1, until the command's
// first one ends.
func reap(pid int) (int, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting for the command: %w", err)
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		}
	}
}

func terminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
