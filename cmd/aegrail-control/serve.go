package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/arpitcoder/aegrail-engine/internal/watch"
)

const (
	// linger is how long everything goes on after SIGTERM, unready: until the last
	// API server, proxy and engine has heard of it they still come here, and a
	// webhook that is not there is a pod that is refused.
	linger = 5 * time.Second

	// drain is how long answers under way may take after that. Both are inside the
	// 30 seconds that kubelet gives a pod.
	drain = 15 * time.Second
)

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
			"leaves the last good one in force, and /readyz says so. A policy that does not load at the start\n" +
			"leaves engines what they have.",
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

// serve runs until ctx ends or a part of control fails. The certificate is
// loaded and every port is bound before the first question is answered. A policy
// that does not load is borne: without webhooks no pod is made, and engines go on
// with what they have.
func serve(ctx context.Context, s settings, logger *slog.Logger) error {
	c := &control{
		settings: s, logger: logger, counters: newCounters(), health: newHealth("cache"),
		policyFile: &policyFile{name: s.policy}, serving: &serving{dir: s.tlsDir},
	}
	if _, err := c.serving.load(time.Now()); err != nil {
		return err
	}
	mgr, err := c.assemble()
	if err != nil {
		return err
	}
	if changed, err := c.loadPolicy(); err != nil {
		c.reloaded(itemPolicy, changed, err)
	}
	logger.Info("serving", "version", version(), "namespace", s.namespace, "link", s.link, "webhooks", s.webhooks, "image", s.image, "enforcement", s.enforcement)
	if s.enforcement == "advisory" {
		logger.Warn("NOT ENFORCED: enforcement is advisory, and an agent that ignores its proxy variables goes where it wants")
	}
	if err := mgr.Start(c.outlive(ctx)); err != nil {
		return fmt.Errorf("running control: %w", err)
	}
	logger.Info("stopped")
	return nil
}

// outlive returns a context that ends linger after ctx does, in which time
// control is unready and goes on.
func (c *control) outlive(ctx context.Context) context.Context {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		c.health.set("stopping", errors.New("control was asked to stop"))
		c.logger.Info("stopping", "linger", linger, "drain", drain)
		time.AfterFunc(linger, end)
	})
	return work
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

// reloaded says what came of reading a file again: in /readyz, metric, log and
// an Event on control's namespace.
func (c *control) reloaded(item string, changed bool, err error) {
	news := c.health.bear(item, err)
	kept := "the last good one stays in force"
	if item == itemPolicy && !c.policies.InForce() {
		kept = "there is none yet, so engines keep what they have and new ones refuse everything"
	}
	switch {
	case err != nil && news:
		c.counters.loaded(item, err)
		c.logger.Error("what was read does not load; "+kept, "what", item, "err", oneLine(err))
		c.tell(corev1.EventTypeWarning, "Rejected", item, "it does not load, and "+kept+": "+oneLine(err))
	case err == nil && (changed || news):
		c.counters.loaded(item, nil)
		c.logger.Info("reloaded", "what", item)
		if news {
			c.tell(corev1.EventTypeNormal, "Loaded", item, "it loads again")
		}
	}
}

// tell makes an Event on control's own namespace, like PolicyRejected.
func (c *control) tell(kind, what, item, note string) {
	if c.events == nil {
		return // there is no cluster yet
	}
	reason := strings.ToUpper(item[:1]) + item[1:] + what
	on := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.settings.namespace}}
	c.events.Eventf(on, nil, kind, reason, "Load", "%s: %s", item, note)
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
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
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
		if end := <-ended; !errors.Is(end, http.ErrServerClosed) {
			err = errors.Join(err, end)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(err, server.Close())
		}
		return err
	}
}
