package isolation

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

// Forwarded are the signals that are meant for a command when they reach the
// engine, and that init passes on to it. What this process was started to ignore
// is not among them (nohup, a job in a script's background): the command is to
// ignore it too, and to take notice of it here would end that. That is known of
// SIGINT and SIGHUP alone: Go's runtime catches every other signal before it can be
// asked, so that a SIGQUIT which was ignored (a script's background has it) is not.
func Forwarded() []os.Signal {
	return slices.DeleteFunc([]os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
	}, signal.Ignored)
}

// FromTerminal reports a signal that a terminal sends to the whole process
// group, so that the command has it already.
func FromTerminal(s os.Signal) bool {
	return s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH
}

// ExitCode is what a process has ended with whose exec.Cmd.Wait returned err: 128 + n
// for signal n, as a shell has it. The error is one of waiting.
func ExitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
