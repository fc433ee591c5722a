package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/arpitcoder/aegrail-engine/internal/isolation"
)

// lookUp finds COMMAND before anything is started for it.
func lookUp(args []string) (*exec.Cmd, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, badInput(fmt.Errorf("cannot run COMMAND: %w", err))
	}
	return &exec.Cmd{Path: path, Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, nil
}

// child is COMMAND as it is started, isolated or not.
type child interface {
	Start() error
	Signal(os.Signal)
	Wait() (int, error) // the exit code: a shell's 128+n for a command that a signal ended
}

// plainChild shares everything with us.
type plainChild struct{ *exec.Cmd }

func (c plainChild) Signal(s os.Signal) { _ = c.Process.Signal(s) } // it may be gone already

func (c plainChild) Wait() (int, error) { return isolation.ExitCode(c.Cmd.Wait()) }

// isolatedChild runs in namespaces that are ready for it.
type isolatedChild struct {
	*isolation.Namespace
	command isolation.Command
}

func (c isolatedChild) Start() error { return c.Run(c.command) }

// runChild runs c to its end and returns its exit code. We outlive it whatever
// signal comes, since what it did is still to be reported.
func runChild(ctx context.Context, c child, stdin *os.File) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, isolation.Forwarded()...)
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
				c.Signal(syscall.SIGTERM)
				return
			case s := <-signals:
				// The terminal sends its own to the whole process group, COMMAND included.
				if !isolation.FromTerminal(s) || !terminal(stdin) {
					c.Signal(s)
				}
			}
		}
	}()
	code, err := c.Wait()
	close(done)
	if err != nil {
		return 0, fmt.Errorf("waiting for COMMAND: %w", err)
	}
	return code, nil
}
