//go:build linux

// Command aegrail-init holds an injected pod: it makes the redirect rules by
// which what runs in the pod reaches the engine beside it and nothing else
// (package redirect), and marks the engine's sockets, which alone the rules let
// out (package passage). It is a native sidecar, the first of the pod's
// containers, and does nothing else.
//
//	serve    makes the rules, reads them back, and marks sockets until SIGTERM
//	check    exits 1 if the rules are not as serve with the same flags leaves
//	         them, or nobody serves
//	dump     prints the rules that are there
//
// Beside the socket at which the engine asks it leaves /etc/resolv.conf and what
// /etc/hosts says of loopback, as they were before anything else of the pod ran. The engine
// has those mounted in place of the pod's own, which every container may write to.
//
// The rules stay when it ends. Started again it leaves them alone if they are as
// they should be; else it replaces them, in one transaction. While it is away
// the engine dials nobody.
//
// Each flag also reads AEGRAIL_INIT_<FLAG>; a flag beats its variable.
//
// It needs CAP_NET_ADMIN over the pod's network namespace and a directory that
// the engine alone shares, and nothing else: no Kubernetes, no nft binary. In a
// pod that is
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
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/arpitcoder/aegrail-engine/internal/flagenv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(report(os.Stderr, err))
}

// run is the whole program but for its exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "aegrail-init",
		Short: "Holds an injected pod: its redirect rules, and the engine's way out",
		Long: "aegrail-init makes the nftables rules that leave what runs in a pod no way out but the\n" +
			"engine beside it: TCP goes to the engine and DNS to its resolver, whichever user sends it, IPv4\n" +
			"and IPv6 alike. Loopback stays free but for the engine's own ports. Other UDP, ICMP and whatever\n" +
			"else is dropped. Who connects to the pod gets an answer: probes and Services work. What is let\n" +
			"out are sockets with a mark that nobody in the pod may set; the engine hands its own to\n" +
			"aegrail-init, which marks them.\n\n" +
			"Each flag also reads AEGRAIL_INIT_<FLAG> (--engine-uid: AEGRAIL_INIT_ENGINE_UID).",
		Example: "  aegrail-init serve --engine-uid 2000000001 --passage /var/run/aegrail/passage\n" +
			"  aegrail-init check --engine-uid 2000000001 --passage /var/run/aegrail/passage",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          func(_ *cobra.Command, args []string) error { return wantNone("unknown command", args) },
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(stderr)
			return usage(errors.Join(c.Help(), errors.New("name a command: serve, check or dump")))
		},
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(
		planCommand("serve", "Make the rules, and mark the engine's sockets until SIGTERM", getenv, serve),
		planCommand("check", "Exit 1 if the rules are not as serve leaves them, or nobody serves", getenv, check),
		&cobra.Command{
			Use: "dump", Short: "Print the rules that are there",
			Args: func(_ *cobra.Command, args []string) error { return wantNone("unexpected argument", args) },
			RunE: func(c *cobra.Command, _ []string) error { return dump(c.OutOrStdout()) },
		})
	return root.ExecuteContext(ctx)
}

// planCommand is a command that is given a plan by flags.
func planCommand(name, short string, getenv func(string) string, do func(context.Context, io.Writer, plan) error) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use: name, Short: short,
		Args: func(_ *cobra.Command, args []string) error { return wantNone("unexpected argument", args) },
		RunE: func(c *cobra.Command, _ []string) error {
			if err := readEnv(c.Flags(), getenv); err != nil {
				return usage(err)
			}
			p, err := o.plan()
			if err != nil {
				return usage(err)
			}
			return do(c.Context(), c.OutOrStdout(), p)
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
