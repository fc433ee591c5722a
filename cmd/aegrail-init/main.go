//go:build linux

// Command aegrail-init makes the redirect rules of an injected pod: what runs
// in the pod reaches the engine beside it and nothing else (package redirect).
// It is an init container, runs before everything else of the pod, and does
// nothing but the rules.
//
//	apply    makes the rules, reads them back, and ends
//	check    exits 1 if the rules are not as apply with the same flags leaves them
//	dump     prints the rules that are there
//
// Each flag also reads AEGRAIL_INIT_<FLAG>; a flag beats its variable.
//
// It needs CAP_NET_ADMIN over the pod's network namespace and nothing else: no
// file, no Kubernetes, no nft binary. In a pod that is
//
//	securityContext:
//	  runAsUser: 0
//	  runAsNonRoot: false
//	  allowPrivilegeEscalation: false
//	  readOnlyRootFilesystem: true
//	  capabilities: {drop: [ALL], add: [NET_ADMIN]}
//
// Exit codes: 0; 1 for what failed, or rules that differ; 2 for wrong usage.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/flagenv"
	"github.com/arpitcoder/aegrail-engine/internal/redirect"
)

func main() {
	os.Exit(report(os.Stderr, run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)))
}

// run is the whole program but for its exit code.
func run(args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "aegrail-init",
		Short: "The redirect rules of an injected pod",
		Long: "aegrail-init makes the nftables rules that leave what runs in a pod no way out but the\n" +
			"engine beside it: TCP of every user but the engine's goes to the engine, DNS to its resolver,\n" +
			"IPv4 and IPv6 alike. Loopback stays free but for the engine's own ports. Other UDP, ICMP and\n" +
			"whatever else is dropped. Who connects to the pod gets an answer: probes and Services work.\n\n" +
			"Each flag also reads AEGRAIL_INIT_<FLAG> (--engine-uid: AEGRAIL_INIT_ENGINE_UID).",
		Example:       "  aegrail-init apply --engine-uid 2000000001\n  aegrail-init check --engine-uid 2000000001",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          func(_ *cobra.Command, args []string) error { return wantNone("unknown command", args) },
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(stderr)
			return usage(errors.Join(c.Help(), errors.New("name a command: apply, check or dump")))
		},
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(
		rulesCommand("apply", "Make the rules and read them back", getenv, apply),
		rulesCommand("check", "Exit 1 if the rules are not as apply leaves them", getenv, check),
		&cobra.Command{
			Use: "dump", Short: "Print the rules that are there",
			Args: func(_ *cobra.Command, args []string) error { return wantNone("unexpected argument", args) },
			RunE: func(c *cobra.Command, _ []string) error { return dump(c.OutOrStdout()) },
		})
	return root.Execute()
}

// rulesCommand is a command that is given the rules by flags.
func rulesCommand(name, short string, getenv func(string) string, do func(io.Writer, redirect.Rules) error) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use: name, Short: short,
		Args: func(_ *cobra.Command, args []string) error { return wantNone("unexpected argument", args) },
		RunE: func(c *cobra.Command, _ []string) error {
			if err := readEnv(c.Flags(), getenv); err != nil {
				return usage(err)
			}
			r, err := o.rules()
			if err != nil {
				return usage(err)
			}
			return do(c.OutOrStdout(), r)
		},
	}
	o.define(c.Flags())
	return c
}

// readEnv gives each flag that was not on the command line the value of its
// variable.
func readEnv(f *pflag.FlagSet, getenv func(string) string) error {
	return flagenv.Read(f, "AEGRAIL_INIT_", nil, getenv)
}

func wantNone(what string, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage(fmt.Errorf("%s %q", what, args[0]))
}

// usageError is what was asked for wrongly.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(err error) error { return usageError{err} }

// report prints err, if there is one, and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "aegrail-init: %v\n", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}
