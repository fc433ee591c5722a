// Command aegrail-control runs once per cluster, in two replicas or more: it
// gives each labelled namespace a certificate authority, injects the engine
// into agents' pods, has each pod's own authority signed, and streams to each
// engine the policy of its pod.
//
//	serve    all of it
//	render   prints what injection makes of a pod on standard input
//
// Each flag also reads AEGRAIL_CONTROL_<FLAG>; a flag beats its variable. This
// package is the only one of control's that reads flags or the environment.
//
// One replica, the leader, reconciles namespaces and cleans up. Webhooks and
// link are answered by all of them.
//
// Exit codes: 0; 1 for what failed; 2 for wrong usage or bad input.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	err := run(context.Background(), os.Args[1:], world{getenv: os.Getenv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
	os.Exit(report(os.Stderr, err))
}

// world is what the process was given besides its arguments.
type world struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run is the whole program but for its exit code.
func run(ctx context.Context, args []string, w world) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	root := &cobra.Command{
		Use:   "aegrail-control",
		Short: "Certificate authorities, injection and policy for the agents of a cluster",
		Long: "aegrail-control gives each namespace with the label aegrail.io/inject=enabled a certificate\n" +
			"authority, injects the engine into its pods, and gives each engine its policy and an authority\n" +
			"that can sign for the hosts of that policy alone.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badInput(fmt.Errorf("unknown command %q; see aegrail-control --help", args[0]))
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(w.stderr)
			return badInput(errors.Join(c.Help(), errors.New("name a command: serve, render or version")))
		},
	}
	root.SetArgs(args)
	root.SetIn(w.stdin)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return badInput(fmt.Errorf("%w\n  see: %s --help", err, c.CommandPath()))
	})
	root.AddCommand(serveCommand(w), renderCommand(w), &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "aegrail-control %s\n", version())
			return err
		},
	})
	return root.ExecuteContext(ctx)
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return badInput(fmt.Errorf("unexpected argument %q\n  see: %s --help", args[0], c.CommandPath()))
	}
	return nil
}

// version is what the Go tool stamped into the binary.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// inputError is the fault of what the user gave.
type inputError struct{ error }

func (e inputError) Unwrap() error { return e.error }

func badInput(err error) error {
	if err == nil {
		return nil
	}
	return inputError{err}
}

// report prints err, if there is one, and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "aegrail-control: %v\n", err)
	var wrong inputError
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}
