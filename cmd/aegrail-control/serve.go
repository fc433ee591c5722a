package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/arpitcoder/aegrail-engine/internal/watch"
)

// drain is how long answers under way may take after SIGTERM.
const drain = 15 * time.Second

// What /readyz and metrics call the things that are read from files.
const (
	itemPolicy = "policy"
	itemTLS    = "certificate"
)

func serveCommand(w world) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run control: namespaces, injection, link",
		Long: "Run control. Each flag also reads AEGRAIL_CONTROL_<FLAG> (--log-level: AEGRAIL_CONTROL_LOG_LEVEL); a flag\n" +
			"beats its variable. Policy and certificate are read again when they change; what does not load\n" +
			"leaves the last good one in force, and /readyz says so.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := readEnv(c.Flags(), w.getenv); err != nil {
				return err
			}
			s, err := o.parse()
			if err != nil {
				return err
			}
			logger, err := newLogger(w.stderr, s.logLevel, s.logFormat)
			if err != nil {
				return err
			}
			return serve(c.Context(), s, logger)
		},
	}
	o.define(c.Flags())
	return c
}

// serve runs until ctx ends or a part of control fails. Nothing is half
// started: policy and certificate are loaded and every port is bound before
// the first question is answered.
func serve(ctx context.Context, s settings, logger *slog.Logger) error {
	c := &control{
		settings: s, logger: logger, counters: newCounters(), health: newHealth("cache"),
		policyFile: &policyFile{name: s.policy}, serving: &serving{dir: s.tlsDir},
	}
	if _, err := c.serving.load(time.Now()); err != nil {
		return err
	}
	if _, err := c.loadPolicy(); err != nil {
		return err
	}
	mgr, err := c.assemble()
	if err != nil {
		return err
	}
	logger.Info("serving", "version", version(), "namespace", s.namespace, "link", s.link, "webhooks", s.webhooks, "image", s.image, "enforcement", s.enforcement)
	if s.enforcement == "advisory" {
		logger.Warn("NOT ENFORCED: enforcement is advisory, and an agent that ignores its proxy variables goes where it wants")
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running control: %w", err)
	}
	logger.Info("stopped")
	return nil
}

// loadPolicy puts the policy file in force, if it is another one.
func (c *control) loadPolicy() (changed bool, err error) {
	set, err := c.policyFile.load()
	if err != nil || set == nil {
		return false, err
	}
	c.policies.Swap(set)
	return true, nil
}

// follow keeps policy and certificate up to date.
func (c *control) follow(ctx context.Context) error {
	watch.New([]watch.Item{
		{Name: itemPolicy, Files: func() []string { return []string{c.settings.policy} }, Load: c.loadPolicy},
		{Name: itemTLS, Files: c.serving.files, Load: func() (bool, error) { return c.serving.load(time.Now()) }},
	}, c.reloaded, c.logger).Run(ctx)
	return nil
}

// reloaded says what came of reading a file again.
func (c *control) reloaded(item string, changed bool, err error) {
	news := c.health.set(item, err)
	switch {
	case err != nil && news:
		c.counters.loaded(item, err)
		c.logger.Error("what changed does not load; the last good one stays in force", "what", item, "err", oneLine(err))
	case err == nil && (changed || news):
		c.counters.loaded(item, nil)
		c.logger.Info("reloaded", "what", item)
	}
}

// everywhere is a part of control that runs in every replica, leader or not.
type everywhere func(context.Context) error

// Start is manager.Runnable's.
func (f everywhere) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection is manager.LeaderElectionRunnable's.
func (everywhere) NeedLeaderElection() bool { return false }

var _ manager.LeaderElectionRunnable = everywhere(nil)

// listen binds an address that a flag names.
func listen(flag, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return ln, nil
}

// httpServer serves h on ln until ctx ends, over TLS if config is not nil.
func (c *control) httpServer(name string, ln net.Listener, h http.Handler, config *tls.Config) everywhere {
	return func(ctx context.Context) error {
		server := &http.Server{
			Handler: h, TLSConfig: config,
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 32 << 10, // 32 KiB
			ErrorLog:       slog.NewLogLogger(c.logger.With("listener", name).Handler(), slog.LevelDebug),
		}
		ended := make(chan error, 1)
		go func() {
			if config != nil {
				ended <- server.ServeTLS(ln, "", "")
				return
			}
			ended <- server.Serve(ln)
		}()
		select {
		case err := <-ended:
			return fmt.Errorf("serving %s on %s: %w", name, ln.Addr(), err)
		case <-ctx.Done():
		}
		deadline, done := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer done()
		err := server.Shutdown(deadline)
		<-ended
		if errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(err, server.Close())
		}
		return err
	}
}
