package isolation

import (
	"os"
	"syscall"
)

// Forwarded are the signals that are meant for a command when they reach the
// engine, and that init passes on to it.
func Forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
	}
}

// FromTerminal reports a signal that a terminal sends to the whole process
// group, so that the command has it already.
func FromTerminal(s os.Signal) bool {
	return s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH
}
