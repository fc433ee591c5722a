package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/arpitcoder/aegrail-engine/internal/admission"
	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// serviceAccount is control's own, who alone may write bundles.
const serviceAccount = "aegrail-control"

// control is everything that one replica runs.
type control struct {
	settings   settings
	logger     *slog.Logger
	counters   *counters
	health     *health
	policyFile *policyFile
	policies   podca.Policies
	serving    *serving
	events     events.EventRecorder // nil before there is a manager
}

// newScheme knows the kinds that control reads and writes.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(cmv1.AddToScheme(scheme))
	return scheme
}

// assemble makes the manager with all parts. Ports are bound here, so that
// one that is taken fails the start.
func (c *control) assemble() (manager.Manager, error) {
	config, err := clusterConfig(c.settings.kubeconfig)
	if err != nil {
		return nil, err
	}
	mgr, err := manager.New(config, manager.Options{
		Scheme: newScheme(), Cache: cached(),
		Logger:  logr.FromSlogHandler(c.logger.Handler()),
		Metrics: metricsserver.Options{BindAddress: "0"}, // ours has our metrics

		LeaderElection: true, LeaderElectionID: "aegrail-control", LeaderElectionNamespace: c.settings.namespace,
		LeaderElectionReleaseOnCancel: true, GracefulShutdownTimeout: new(drain + 5*time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	signer, err := c.reconcile(mgr)
	if err != nil {
		return nil, err
	}
	parts := []manager.Runnable{everywhere(c.follow), everywhere(func(ctx context.Context) error {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			c.health.set("cache", nil)
		}
		return nil
	})}
	served, err := c.listeners(mgr, signer)
	if err != nil {
		return nil, err
	}
	for _, part := range append(parts, served...) {
		if err := mgr.Add(part); err != nil {
			return nil, err
		}
	}
	return mgr, nil
}

// clusterConfig is how to reach the API server.
func clusterConfig(kubeconfig string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	} else {
		config, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, badInput(fmt.Errorf("finding the API server: %w; run in a pod, or give --kubeconfig", err))
	}
	config.UserAgent = "aegrail-control/" + version()
	config.QPS, config.Burst = 50, 200 // a namespace of hundreds of pods starts at once
	return config, nil
}

// cached bounds what is kept in memory: namespaces, the bundles, and what is
// looked at of injected pods. Everything else is read live.
func cached() cache.Options { return cache.Options{ByObject: namespaces.Cached()} }

// reconcile adds what runs on the leader, and returns who signs for pods.
func (c *control) reconcile(mgr manager.Manager) (*podca.Signer, error) {
	c.record(mgr.GetEventRecorder(serviceAccount))
	cas, err := namespaces.New(namespaces.Options{
		Namespace: c.settings.namespace, Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Issuer: c.settings.namespaceIssuer,
		PublicRoots: func() ([]byte, error) { return readFile("public roots", c.settings.publicRoots) },
		ControlCA:   c.serving.ca, Events: c.events, Logger: c.logger, Report: c.counters.namespace,
	})
	if err != nil {
		return nil, err
	}
	if err := cas.Setup(mgr); err != nil {
		return nil, err
	}
	if err := mgr.Add(&guard{live: mgr.GetAPIReader(), count: c.counters.unheld.Set, logger: c.logger}); err != nil {
		return nil, err
	}
	recorder, err := podca.NewRecorder(c.settings.namespace, c.events, c.logger, c.counters.called)
	if err != nil {
		return nil, err
	}
	signer, err := podca.NewSigner(podca.Options{
		Namespace: c.settings.namespace, Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Injected: inject.CheckLive,
		Issuer: namespaces.Name, Recorder: recorder,
		Generation: func(ctx context.Context, namespace string) (int, error) {
			return namespaces.Signing(ctx, mgr.GetClient(), namespace)
		},
		Roots: func(ctx context.Context, namespace string, generation int) ([]*x509.Certificate, error) {
			return namespaces.Roots(ctx, mgr.GetAPIReader(), c.settings.namespace, namespace, generation, time.Now())
		},
	})
	if err != nil {
		return nil, err
	}
	return signer, mgr.Add(manager.RunnableFunc(signer.Run)) // on the leader: it deletes
}

// listeners are the parts that answer others, in every replica.
func (c *control) listeners(mgr manager.Manager, signer *podca.Signer) ([]manager.Runnable, error) {
	webhooks, err := admission.New(admission.Options{
		Config: c.settings.config, Namespaces: admission.Cluster(mgr.GetClient()), Logger: c.logger, Observe: c.counters.admitted,
		Writers: []string{fmt.Sprintf("system:serviceaccount:%s:%s", c.settings.namespace, serviceAccount)},
	})
	if err != nil {
		return nil, badInput(err)
	}
	backend, err := podca.NewBackend(signer, &c.policies)
	if err != nil {
		return nil, err
	}
	server, err := link.NewServer(backend, link.ServerOptions{GetCertificate: c.serving.certificate, Refused: signer.Recorder.Refused, Logger: c.logger})
	if err != nil {
		return nil, err
	}
	var bound []net.Listener
	for _, at := range []struct{ flag, addr string }{
		{"--webhook-listen", c.settings.webhooks}, {"--link-listen", c.settings.link},
		{"--metrics-listen", c.settings.metrics}, {"--health-listen", c.settings.health},
	} {
		ln, err := listen(at.flag, at.addr)
		if err != nil {
			for _, b := range bound {
				_ = b.Close()
			}
			return nil, err
		}
		bound = append(bound, ln)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.serving.certificate}
	return []manager.Runnable{
		c.httpServer("webhooks", bound[0], webhooks, tlsConfig),
		everywhere(func(ctx context.Context) error { return server.Serve(ctx, bound[1]) }),
		c.httpServer("metrics", bound[2], c.counters.handler(), nil),
		c.httpServer("health", bound[3], c.health.handler(), nil),
	}, nil
}
