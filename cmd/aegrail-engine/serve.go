package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/ship"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
	"github.com/arpitcoder/aegrail-engine/internal/watch"
)

// drain is how long requests under way may take to finish after SIGTERM. It is
// inside the 30 seconds that kubelet gives a pod by default.
const drain = 20 * time.Second

func serveCommand(w *world) *cobra.Command {
	o := new(serveOptions)
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the engine: sidecar, gateway, or a proxy on a laptop",
		Long: "Run the engine. Without --policy or --control everything is denied.\n\n" +
			"Each flag also reads AEGRAIL_ENGINE_<FLAG> (--audit-file: AEGRAIL_ENGINE_AUDIT_FILE); a flag\n" +
			"beats its variable. Policy and certificate authority are read again when they change and on\n" +
			"SIGHUP, or come from aegrail-control (--control), which is asked for a new authority in time;\n" +
			"what does not load leaves the last good one in force, and /readyz says so.",
		Example: "  aegrail-engine ca init --dir ca\n" +
			"  aegrail-engine serve --policy policy.yaml --ca-dir ca --audit-file audit.log",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := readSettings(c, o, w.getenv)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			context.AfterFunc(ctx, stop) // a second signal ends us at once
			return serve(ctx, s, w)
		},
	}
	o.define(c.Flags())
	return c
}

// serve runs until ctx ends. Nothing is half started: policy and authority are
// read, every port is bound and the log is open before the first connection
// is taken.
func serve(ctx context.Context, s settings, w *world) error {
	logger := newLogger(w.stderr, s)
	if err := harden(); err != nil {
		logger.Warn("the process can be traced by its own user", "err", err)
	}
	d, err := assemble(s, w.stdout, logger)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

func newLogger(w io.Writer, s settings) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.level}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// daemon is an engine with its listeners and what keeps it up to date.
type daemon struct {
	*engine
	settings  settings
	source    source
	serving   *servingCert // of --listen-tls; nil: a leaf of our own
	listeners *listeners
	health    *health
	shipper   *ship.Shipper
	revision  string // of the policy in force at the start
}

// assemble makes everything that can fail before anything is announced. What
// it made before a failure it closes again.
func assemble(s settings, stdout io.Writer, logger *slog.Logger) (_ *daemon, err error) {
	d := &daemon{settings: s, health: newHealth(s.enforcement), source: newSource(s, logger)}
	rules, ca, err := d.source.first()
	if err != nil {
		return nil, err
	}
	if s.tlsCert != "" {
		d.serving = &servingCert{certFile: s.tlsCert, keyFile: s.tlsKey}
		if _, err := d.serving.load(); err != nil {
			return nil, err
		}
	}
	roots, err := trustRoots(s.upstreamRoots)
	if err != nil {
		return nil, err
	}
	key, err := digestKey(s.digestKey)
	if err != nil {
		return nil, err
	}
	if d.listeners, err = bind(s); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.listeners.close()
		}
	}()
	if d.shipper, err = newShipper(s, roots, logger); err != nil {
		return nil, err
	}
	config := d.auditConfig(stdout, rules.set, logger)
	if config.Anchored, err = lastAnchored(s.anchors); err != nil {
		return nil, err
	}
	log, err := audit.Open(config)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	d.engine, err = newEngine(engineParts{
		set: rules.set, authority: ca, log: log, digests: key, leafCache: s.leafCache, logger: logger,
		agent: d.source.agent, identify: d.source.identify, shipper: d.shipper, enforced: s.enforced(), control: s.control != "",
		upstream: upstream.Config{
			Control: s.mark(), Roots: roots, DenyCIDRs: s.deny, Own: d.listeners.addresses(), Proxy: s.proxy, ProxyBypass: s.upstreamBypass, Logger: logger,
		},
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := d.shipper.Start(log.SessionID(), log.Stats); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if rules.set == nil {
		d.health.set("policy", errors.New("none yet: aegrail-control has not sent one, and everything is denied"))
	}
	d.warn(rules)
	d.revision = rules.set.Revision()
	d.health.logFailed = log.Err
	return d, nil
}

func (d *daemon) auditConfig(stdout io.Writer, set *policy.Set, logger *slog.Logger) audit.Config {
	s := &d.settings
	c := audit.Config{
		File: s.auditFile, Now: time.Now, Identity: s.agentName(), Logger: logger, PolicyRevision: set.Revision(),
		Start: map[string]string{"version": readBuild().version, "command": "serve"},
		Key:   func() (*checkpoint.Signer, error) { return auditSigner(s.auditKey, logger) }, CheckpointEvery: s.checkpointEvery, Rotate: s.rotate,
		OnCheckpoint: d.shipper.Publish,
	}
	c.Rotate.Keep, c.Rotate.Removable = s.auditKeep, d.shipper.Removable
	for fact, value := range map[string]string{"policy_file": s.policy, "control": s.control, "enforcement": s.enforcement} {
		if value != "" {
			c.Start[fact] = value
		}
	}
	if s.auditStdout {
		c.Stdout = stdout
	} else {
		c.Checkpoints = stdout // where a platform collects what a pod prints, that is an anchor outside of it
	}
	if s.strict {
		c.Durability = audit.Strict
	}
	return c
}

// run serves until ctx ends or a listener fails, then drains.
func (d *daemon) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { d.source.follow(ctx, d.engine, d.reloaded) })
	if d.serving != nil {
		watching.Go(func() { watch.New([]watch.Item{d.serving.watched()}, d.reloaded, d.logger).Run(ctx) })
	}
	fail := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("%s: %w", what, err))
		}
	}
	l := d.listeners
	if l.forward != nil {
		go func() { fail("--listen", d.proxy.Serve(ctx, l.forward)) }()
	}
	if l.tls != nil {
		go func() { fail("--listen-tls", d.proxy.ServeTLS(ctx, l.tls, d.listenTLS())) }()
	}
	for _, ln := range l.transparent {
		go func() { fail("--transparent-listen", d.proxy.ServeTransparent(ctx, ln)) }()
	}
	resolving := make(chan struct{})
	go func() {
		defer close(resolving)
		fail("--dns-listen", d.resolve(ctx))
	}()
	admin := adminServer(d.health, d.metrics.Handler(), d.log.VerifierKey(), d.logger)
	if l.admin != nil {
		go func() { fail("--admin-listen", unlessClosed(admin.Serve(l.admin))) }()
	}
	if l.profiles != nil {
		go func() { fail("--pprof-socket", l.profiles.serve()) }()
	}
	d.health.set("starting", nil)
	d.announce()

	<-ctx.Done()
	d.health.set("stopping", errors.New("draining"))
	d.logger.Info("stopping", "drain", drain)
	watching.Wait()
	<-resolving
	deadline, done := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer done()
	err := d.stop(deadline)
	d.shipRest()
	admin.Close()
	l.close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	d.logger.Info("stopped")
	return err
}

// resolve answers DNS until ctx ends. What it counted is in the log when it
// returns.
func (d *daemon) resolve(ctx context.Context) error {
	if len(d.listeners.dns) == 0 {
		return nil
	}
	var packets []*net.UDPConn
	var streams []net.Listener
	for _, l := range d.listeners.dns {
		packets, streams = append(packets, l.packet), append(streams, l.stream)
	}
	r, err := d.newResolver(hasIPv6())
	if err != nil {
		return err
	}
	return errors.Join(serveDNS(ctx, r, packets, streams), r.Close())
}

func unlessClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// announce is the line that says everything works: each address as it was
// bound, so that port 0 can be used.
func (d *daemon) announce() {
	l := d.listeners
	attrs := []any{"version", readBuild().version, "session", d.log.SessionID(), "policy", d.revision, "audit_key", d.log.VerifierKey()}
	for _, a := range []struct {
		name string
		ln   net.Listener
	}{{"listen", l.forward}, {"listen_tls", l.tls}, {"admin", l.admin}} {
		if a.ln != nil {
			attrs = append(attrs, a.name, a.ln.Addr().String())
		}
	}
	if s := &d.settings; s.policy == "" && len(s.allowlist) == 0 && s.control == "" {
		d.logger.Warn("no --policy: everything is denied")
	}
	if d.settings.observe {
		d.logger.Warn("--observe: what the policy denies is let pass and recorded as observed")
	}
	if s := &d.settings; len(s.anchors)+len(s.sinks) > 0 {
		attrs = append(attrs, "anchors", names(s.anchors), "sinks", names(s.sinks))
	}
	if len(l.transparent) > 0 {
		attrs = append(attrs, "transparent", l.transparent[0].Addr().String())
	}
	if len(l.dns) > 0 {
		attrs = append(attrs, "dns", l.dns[0].stream.Addr().String())
	}
	if d.settings.enforcement != "" {
		attrs = append(attrs, "enforcement", d.settings.enforcement)
	}
	if d.settings.enforcement == advisory {
		d.logger.Warn(notEnforced)
	}
	d.logger.Info("serving", attrs...)
}

// listenTLS presents the certificate of --listen-tls-cert, or a leaf of our own
// authority for the name that clients of --listen-tls expect. Clients trust that
// by the same bundle as everything else.
func (d *daemon) listenTLS() *tls.Config {
	if d.serving != nil {
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: d.serving.get}
	}
	names := d.settings.tlsNames()
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := names[0]
			if i := slices.Index(names, canonical(chi.ServerName)); i > 0 {
				name = names[i]
			}
			return d.leaves.Leaf(chi.Context(), name)
		},
	}
}

// tlsNames are the names of the --listen-tls leaves, at least one:
// --listen-tls-name, or the address's host, or this machine's loopback where it
// listens on every address.
func (s settings) tlsNames() []string {
	if len(s.listenTLSNames) == 0 {
		host, _, err := net.SplitHostPort(s.listenTLS)
		if ip, perr := netip.ParseAddr(host); err != nil || host == "" || perr == nil && ip.IsUnspecified() {
			return []string{"localhost"}
		}
		return []string{canonical(host)}
	}
	var names []string
	for _, name := range s.listenTLSNames {
		names = append(names, canonical(name))
	}
	return names
}

// canonical is a host as leaves name it, or what is no host as it is.
func canonical(name string) string {
	if a, err := canon.ParseAuthority(name, 443); err == nil {
		return a.Host
	}
	return name
}

// digestKey reads the key of --audit-digest-key. Its id in the log is a hash
// of it: nobody has to keep names and keys together, and an auditor can tell
// which of several keys a record used.
func digestKey(file string) (digest.Keyed, error) {
	if file == "" {
		return digest.Keyed{}, nil
	}
	return readDigestKey(file)
}
