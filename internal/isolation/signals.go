package isolation

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// Forwarded are the signals that are meant for a command when they reach the
// engine, and that init passes on to it. What this process was started to ignore
// is not among them (nohup, a job in a script's background): the command is to
// ignore it too, and to take notice of it here would end that.
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
