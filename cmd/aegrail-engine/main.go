// Command aegrail-engine is the only way out for an AI agent: a proxy that
// terminates TLS, judges each request against a policy, and writes a record of
// it that cannot be changed or cut without showing.
//
//	serve    the sidecar and the gateway
//	exec     an engine for the life of one command, on a laptop
//	policy   check, explain, test, replay and suggest policies
//	audit    verify, show and follow a log, report on it
//	ca       make and look at a certificate authority
//	doctor   try the ways around the engine, from where an agent is
//
// Each flag of serve also reads AEGRAIL_ENGINE_<FLAG>; a flag beats its
// variable. This package is the only one that reads flags or the environment.
//
// Exit codes: 0; 1 for what failed; 2 for wrong usage or bad input. exec exits
// with its command's code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	os.Exit(report(os.Stderr, err))
}

// run is the whole program but for its exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	root := rootCommand(&world{getenv: getenv, stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// world is what the process was given besides its arguments.
type world struct {
	getenv func(string) string
	stdout io.Writer
	stderr io.Writer
}

func rootCommand(w *world) *cobra.Command {
	root := &cobra.Command{
		Use:   "aegrail-engine",
		Short: "The only way out for an AI agent: inspect, decide, record, forward",
		Long: "aegrail-engine is the only way out for an AI agent. It terminates TLS, judges each request\n" +
			"against a policy, forwards exactly what it judged, and writes a record that cannot be\n" +
			"changed or cut without showing.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	root.SetFlagErrorFunc(flagError)
	group(root, serveCommand(w), execCommand(w), policyCommand(w), auditCommand(w), caCommand(w), doctorCommand(w), versionCommand(w), isolatedCommand())
	return root
}

// group makes parent a command that only has sub-commands.
func group(parent *cobra.Command, children ...*cobra.Command) *cobra.Command {
	parent.AddCommand(children...)
	// cobra takes an unknown sub-command below the root for an argument and
	// answers with help and exit code 0; a script must not take that for success.
	parent.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		c.SuggestionsMinimumDistance = 2
		hint := ""
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf(", did you mean %q?", near[0])
		}
		return usagef(c, "unknown command %q%s", args[0], hint)
	}
	parent.RunE = func(c *cobra.Command, _ []string) error {
		c.SetOut(c.ErrOrStderr())
		if err := c.Help(); err != nil {
			return err
		}
		return &exitError{code: exitUsage}
	}
	return parent
}

// noArguments is for a command that takes flags alone. cobra.NoArgs calls an argument an unknown command.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(c, "unexpected argument %q: %s takes flags alone", args[0], c.CommandPath())
	}
	return nil
}

// takes wraps a check of the number of arguments, so that it ends with the
// exit code of wrong usage.
func takes(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usagef(c, "%v", err)
		}
		return nil
	}
}

const (
	exitFailed = 1
	exitUsage  = 2 // wrong usage or bad input
)

// exitError is an error that says how the process ends. Every other error ends
// it with exitFailed.
type exitError struct {
	code int
	err  error // nil: nothing is printed, everything was said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is wrong usage of c.
func usagef(c *cobra.Command, format string, args ...any) error {
	return badInput(fmt.Errorf("%w\n  see: %s --help", fmt.Errorf(format, args...), c.CommandPath()))
}

// badInput marks err as the fault of what the user gave: a file that does not
// load, an argument that makes no sense.
func badInput(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitUsage, err: err}
}

// report prints err, if it has anything to say, and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	fmt.Fprintf(stderr, "aegrail-engine: %v\n", err)
	return code
}
