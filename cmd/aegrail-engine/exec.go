package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/isolation"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/trustenv"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// defaultExecLog is where exec writes without --audit-file: beside the work,
// where it is found again.
const defaultExecLog = "aegrail-audit.log"

// execDrain is how long requests that outlive COMMAND may take to finish.
const execDrain = 5 * time.Second

// notIsolated is what it means that exec cannot hold a command.
const notIsolated = "COMMAND shares this machine's network, and what ignores the proxy variables is neither judged nor recorded"

type execOptions struct {
	policy, auditFile, upstreamRoots string
	observe, requireIsolation        bool
}

func execCommand(w *world) *cobra.Command {
	o := new(execOptions)
	c := &cobra.Command{
		Use:   "exec --policy FILE -- COMMAND [ARG…]",
		Short: "Run a command whose way out is an engine of its own",
		Long: "Run COMMAND with an engine for its life: an ephemeral certificate authority, the proxy and\n" +
			"trust variables for the common runtimes, and what was allowed and denied on standard error.\n" +
			"Exits with COMMAND's code.\n\n" +
			"On Linux COMMAND runs in namespaces of its own whose only way out is the engine. Where that\n" +
			"cannot be had, one line says NOT ISOLATED and why, and COMMAND runs with the variables alone;\n" +
			"with --require-isolation it does not run, and the exit code is 1.",
		Example: "  aegrail-engine exec --policy policy.yaml -- python agent.py",
		Args: takes(func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no COMMAND: write it after --")
			}
			return nil
		}),
		RunE: func(c *cobra.Command, args []string) error {
			if o.policy == "" {
				return usagef(c, "--policy is missing: without a policy everything would be denied")
			}
			return execute(c.Context(), o, args, w)
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows COMMAND is COMMAND's
	f.Var(&onePolicy{&o.policy}, "policy", "policy `FILE`")
	f.StringVar(&o.auditFile, "audit-file", defaultExecLog, "write the audit log to `FILE`")
	f.BoolVar(&o.observe, "observe", false, "let pass what the policy denies, and say that it would have been denied")
	f.StringVar(&o.upstreamRoots, "upstream-roots", "", "roots to trust besides the system's, in `FILE` (PEM)")
	f.BoolVar(&o.requireIsolation, "require-isolation", false, "exit 1 where COMMAND cannot be kept from going around the engine")
	return c
}

// execute runs args behind an engine of its own.
func execute(ctx context.Context, o *execOptions, args []string, w *world) error {
	command, err := lookUp(args)
	if err != nil {
		return err
	}
	// Before harden: a process that cannot be read cannot map its child's users.
	cage, why := isolation.Start([]string{"aegrail-engine", isolatedName})
	if why == nil {
		defer cage.Close()
	} else if o.requireIsolation {
		return cannotIsolate(why)
	}
	if err := harden(); err != nil {
		fmt.Fprintf(w.stderr, "aegrail-engine: %v\n", err)
	}
	paint := newPainter(w.stderr, w.getenv)
	seen := newTally(w.stderr, paint)
	l := &laptop{cage: cage, notIsolated: why}
	defer l.cleanUp()
	if err := l.start(o, w, seen); err != nil {
		return err
	}
	command.Env = l.env
	var c child = plainChild{command}
	if l.notIsolated == nil {
		c = isolatedChild{cage, isolation.Command{Path: command.Path, Args: command.Args, Env: command.Env}}
		if os.Getuid() == 0 {
			fmt.Fprintln(w.stderr, "aegrail-engine: COMMAND is root's: its network is held, but what it writes to root's files may run outside; run this as another user")
		}
	} else {
		fmt.Fprintf(w.stderr, "%s %s; %s\n", paint.yellow("NOT ISOLATED:"), oneLine(l.notIsolated.Error()), notIsolated)
	}
	code, err := runChild(ctx, c, os.Stdin)
	err = errors.Join(err, l.stop(w, paint))
	seen.summary(o.auditFile, l.log.Stats().Dropped)
	if l.policyChanged() {
		fmt.Fprintf(w.stderr, "aegrail-engine: %s is not what it was when COMMAND began; look at it before you use it again\n", o.policy)
	}
	if err == nil && code != 0 {
		return &exitError{code: code}
	}
	return err
}

// laptop is an engine for one COMMAND, with a directory for what COMMAND has to
// read.
type laptop struct {
	*engine
	policyFile  *policyFile
	cage        *isolation.Namespace // nil where there is none
	notIsolated error                // why COMMAND is not isolated; nil where it is
	listeners   laptopListeners
	made        []string   // files that were not there before
	serving     chan error // one for each listener
	cancel      context.CancelFunc
	dir         string // 0700: the bundle, for COMMAND to read; never a key
	env         []string
}

// start makes the engine. Nothing is served before everything is there.
func (l *laptop) start(o *execOptions, w *world, seen *tally) error {
	l.policyFile = &policyFile{name: o.policy, options: policy.Options{AnyAgent: true, Observe: o.observe}}
	rules, err := l.policyFile.load()
	if err != nil {
		return err
	}
	l.policyFile.name = absolute(o.policy) // whatever becomes of this directory
	for _, warning := range rules.warnings {
		fmt.Fprintf(w.stderr, "aegrail-engine: %s\n", warning.String())
	}
	roots, err := trustRoots(o.upstreamRoots)
	if err != nil {
		return err
	}
	authority, err := certs.NewEphemeral(time.Now())
	if err != nil {
		return fmt.Errorf("making the certificate authority: %w", err)
	}
	if l.dir, err = os.MkdirTemp("", "aegrail-exec-"); err != nil { // MkdirTemp makes it 0700
		return fmt.Errorf("making a directory for the trust bundle: %w", err)
	}
	// What the engine itself has to say goes to the log and into the summary.
	logger := slog.New(slog.NewTextHandler(w.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if err := l.isolate(o, logger); err != nil {
		return err
	}
	if l.env, err = trustEnvironment(l.dir, authority, l.listeners.forwardAddr(), w); err != nil {
		return err
	}
	log, err := audit.Open(audit.Config{
		File: o.auditFile, Stdout: seen, Key: func() (*checkpoint.Signer, error) { return auditSigner(o.auditFile+keySuffix, logger) },
		Now: time.Now, Identity: execIdentity(w.getenv), Logger: logger, PolicyRevision: rules.set.Revision(), Start: l.facts(o),
	})
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	agent := identity.Principal{AgentIdentity: execIdentity(w.getenv)}
	l.engine, err = newEngine(engineParts{
		set: rules.set, authority: authority, log: log, leafCache: 256, logger: logger,
		agent: func() identity.Principal { return agent }, identify: identity.Fixed(agent),
		upstream: upstream.Config{Roots: roots, Own: l.listeners.addresses(), Logger: logger},
	})
	if err != nil {
		return errors.Join(err, log.Close())
	}
	return l.serve()
}

// policyChanged reports that the next run would not be under this one's policy.
// COMMAND cannot write the file, but it may rename what the file is in.
func (l *laptop) policyChanged() bool {
	_, changed, err := l.policyFile.reload()
	return changed || err != nil
}

// facts are what the log says of this run. An auditor reads there whether
// COMMAND could have gone around the engine.
func (l *laptop) facts(o *execOptions) map[string]string {
	f := map[string]string{"version": readBuild().version, "command": "exec", "policy_file": o.policy, "enforcement": "isolated"}
	if l.notIsolated != nil {
		f["enforcement"], f["not_isolated"] = "advisory", oneLine(l.notIsolated.Error())
	}
	return f
}

// serve begins to serve every listener.
func (l *laptop) serve() error {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	jobs := []func() error{func() error { return l.proxy.Serve(ctx, l.listeners.forward) }}
	if in := l.listeners.inside; in != nil {
		r, err := l.newResolver(in.IPv6())
		if err != nil {
			return err
		}
		for _, ln := range in.Transparent {
			jobs = append(jobs, func() error { return l.proxy.ServeTransparent(ctx, ln) })
		}
		jobs = append(jobs, func() error { return errors.Join(serveDNS(ctx, r, in.DNSPacket, in.DNSStream), r.Close()) })
	}
	l.serving = make(chan error, len(jobs))
	for _, job := range jobs {
		go func() { l.serving <- job() }()
	}
	return nil
}

// execIdentity is the agent's name in the log.
func execIdentity(getenv func(string) string) string {
	for _, name := range []string{envPrefix + "AGENT_IDENTITY", "AEGRAIL_AGENT_IDENTITY"} {
		if v := getenv(name); v != "" {
			return v
		}
	}
	return defaultIdentity
}

// stop drains the engine, and says so where that takes long enough to wonder.
func (l *laptop) stop(w *world, paint painter) error {
	wondering := time.AfterFunc(time.Second, func() {
		fmt.Fprintln(w.stderr, paint.faint("aegrail-engine: waiting for requests that COMMAND left open"))
	})
	defer wondering.Stop()
	l.cancel()
	var err error
	for range cap(l.serving) {
		err = errors.Join(err, <-l.serving)
	}
	ctx, done := context.WithTimeout(context.Background(), execDrain)
	defer done()
	return errors.Join(err, l.engine.stop(ctx))
}

func (l *laptop) cleanUp() {
	l.listeners.close()
	if l.dir != "" {
		_ = os.RemoveAll(l.dir) // what stays behind is public
	}
}

// trustEnvironment writes the bundles into dir and returns COMMAND's
// environment. What the user's variables trusted stays trusted; proxies of the
// user's are replaced, and each such loss is said.
func trustEnvironment(dir string, ca *certs.Authority, proxy netip.AddrPort, w *world) ([]string, error) {
	environ := os.Environ()
	_, system, err := certs.SystemBundle(nil)
	if err != nil {
		fmt.Fprintf(w.stderr, "aegrail-engine: COMMAND trusts the engine alone: %v\n", err)
	}
	extra := [][]byte{ca.RootsPEM()}
	for _, name := range trustenv.UserBundles(environ) {
		data, err := readFile("bundle", name)
		if err == nil {
			_, err = certs.Bundle(nil, data)
		}
		if err != nil {
			fmt.Fprintf(w.stderr, "aegrail-engine: a bundle that the environment names is left out: %v\n", err)
			continue
		}
		extra = append(extra, data)
	}
	trust, err := certs.Bundle(system, extra...)
	if err != nil {
		return nil, fmt.Errorf("making the trust bundle: %w", err)
	}
	store, err := trust.PKCS12(storePassword)
	if err != nil {
		return nil, fmt.Errorf("making the Java trust store: %w", err)
	}
	s := trustenv.Settings{
		ProxyURL: "http://" + proxy.String(), BundlePEM: filepath.Join(dir, "bundle.pem"),
		BundleP12: filepath.Join(dir, "trust.p12"), P12Password: storePassword,
	}
	for name, data := range map[string][]byte{s.BundlePEM: trust.PEM(), s.BundleP12: store} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return nil, fmt.Errorf("writing the trust bundle: %w", err)
		}
	}
	for _, d := range trustenv.Dropped(environ) {
		fmt.Fprintf(w.stderr, "aegrail-engine: %v\n", d)
	}
	return trustenv.Build(environ, s)
}
