package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// lookUp finds COMMAND before anything is started for it.
func lookUp(args []string) (*exec.Cmd, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, badInput(fmt.Errorf("cannot run COMMAND: %w", err))
	}
	return &exec.Cmd{Path: path, Args: args}, nil
}

// forwarded are the signals that are meant for COMMAND when they reach us.
func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
	}
}

// runChild runs c to its end and returns its exit code: a shell's 128+n for a
// command that a signal ended. We outlive it whatever signal comes, since what
// it did is still to be reported.
func runChild(ctx context.Context, c *exec.Cmd, stdin *os.File) (int, error) {
	c.Stdin, c.Stdout, c.Stderr = stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("starting COMMAND: %w", err)
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				_ = c.Process.Signal(syscall.SIGTERM) // it may be gone already
				return
			case s := <-signals:
				// The terminal sends its own to the whole process group, COMMAND included.
				if (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH) && terminal(stdin) {
					continue
				}
				_ = c.Process.Signal(s)
			}
		}
	}()
	err := c.Wait()
	close(done)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, fmt.Errorf("waiting for COMMAND: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
