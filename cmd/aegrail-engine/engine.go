package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
	"github.com/arpitcoder/aegrail-engine/internal/quota"
	"github.com/arpitcoder/aegrail-engine/internal/ship"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// engine is everything behind the listeners: what serve and exec have in
// common.
type engine struct {
	policy   *proxy.PolicySource
	log      *audit.Log
	leaves   *certs.Store
	upstream *upstream.Client
	metrics  *metrics.Metrics
	proxy    *proxy.Server
	agent    func() identity.Principal // who is served
	logger   *slog.Logger
}

// engineParts is what an engine is made of.
type engineParts struct {
	set       *policy.Set      // nil denies everything
	authority *certs.Authority // nil: no leaf is to be had
	log       *audit.Log
	upstream  upstream.Config
	agent     func() identity.Principal // who is served
	identify  identity.Func             // whose a connection is
	digests   digest.Keyed
	leafCache int
	shipper   *ship.Shipper // nil: nothing takes the log elsewhere
	enforced  *bool         // nil: nobody has said
	control   bool          // aegrail-control is followed
	logger    *slog.Logger
}

// newEngine wires the parts. The log stays the caller's to close.
func newEngine(p engineParts) (_ *engine, err error) {
	leaves, err := certs.NewStore(p.authority, certs.StoreOptions{Capacity: p.leafCache, Now: time.Now})
	if err != nil {
		return nil, err
	}
	client, err := upstream.New(p.upstream)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			client.Close()
		}
	}()
	quotas, err := quota.New(quota.Config{Now: time.Now})
	if err != nil {
		return nil, err
	}
	anchors, sinks := shipStats(p.shipper)
	counters, err := metrics.New(metrics.Config{
		Anchors: anchors, Sinks: sinks, Enforced: p.enforced, Control: p.control,
		Version: readBuild().version, Audit: p.log.Stats,
		Leaves: func() metrics.LeafStats {
			s := leaves.Stats()
			return metrics.LeafStats{Hits: s.Hits, Misses: s.Misses, Mints: s.Mints, Size: s.Size}
		},
	})
	if err != nil {
		return nil, err
	}
	e := &engine{policy: new(proxy.PolicySource), log: p.log, leaves: leaves, upstream: client, metrics: counters, agent: p.agent, logger: p.logger}
	if p.authority != nil {
		counters.CALoaded(p.authority.NotAfter())
	} else {
		counters.CAWithdrawn()
	}
	if e.policy.Store(p.set); p.set != nil {
		counters.PolicyLoaded(p.set.Revision())
	}
	e.proxy, err = proxy.New(proxy.Config{
		Policy: e.policy, Log: p.log, Leaves: leaves, Upstream: client, Quota: quotas,
		Identify: p.identify, Metrics: e.metrics, Logger: p.logger, DigestKey: p.digests,
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// stop drains: what is under way may finish until ctx ends. The log is closed
// last, so that every completion is in it.
func (e *engine) stop(ctx context.Context) error {
	err := e.proxy.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("some requests did not finish in time and were cut; the log has their decision without a completion")
	}
	e.upstream.Close()
	if cerr := e.log.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("closing the audit log: %w", cerr))
	}
	return err
}

// trustRoots returns the system's roots and those in file; nil for the
// system's alone.
func trustRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := readFile("upstream roots", file)
	if err != nil {
		return nil, badInput(err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("loading the system's roots: %w", err)
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, badInput(fmt.Errorf("--upstream-roots %s holds no PEM certificate", file))
	}
	return pool, nil
}
