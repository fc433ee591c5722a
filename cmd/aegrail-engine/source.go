package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/watch"
)

// source is where an engine's policy and certificate authority come from:
// fromFiles or fromControl.
type source interface {
	// first is what is in force when the engine begins. What is not there yet is
	// denied, by a policy and an authority that are nil.
	first() (compiled, *certs.Authority, error)

	// agent is who the engine serves, as far as is known now: in a sidecar the
	// one agent. It is called from many goroutines, as is identify.
	agent() identity.Principal

	// identify says whose a connection is, as it begins and once a second that it
	// carries a request: an identity.Func.
	identify(flow intake.Flow) (identity.Principal, error)

	// follow keeps e up to date until ctx ends. What came of each attempt goes to
	// told, which may be called by one goroutine at a time.
	follow(ctx context.Context, e *engine, told func(item string, changed bool, err error))
}

// newSource is the source that s names.
func newSource(s settings, logger *slog.Logger) source {
	options := policy.Options{
		AnyAgent: !s.inPod() && s.control == "", Observe: s.observe, AllowHosts: s.allowlist,
		Limits: v1alpha1.Limits{Rate: s.perTime, MaxRequests: s.maxRequests},
	}
	if s.control != "" {
		f := &fromControl{
			address: s.control, rootsFile: s.controlCA, tokenFile: s.controlToken, trustFile: s.trustFile(), gateway: s.gateway, dial: s.dial(),
			options: options, before: s.principal(), logger: logger,
		}
		f.reviewed = identity.Reviewed(f.ask, time.Now)
		return f
	}
	return &fromFiles{
		policies:  &policyFile{name: s.policy, options: options},
		authority: &authorityFiles{cert: s.caCert, key: s.caKey, dir: s.caDir},
		who:       s.principal(), logger: logger,
	}
}

// fromFiles is a policy file and a certificate authority in files, which may
// both change under way.
type fromFiles struct {
	policies  *policyFile
	authority *authorityFiles
	who       identity.Principal
	logger    *slog.Logger
}

func (f *fromFiles) first() (compiled, *certs.Authority, error) {
	rules, err := f.policies.load()
	if err != nil {
		return compiled{}, nil, err
	}
	ca, err := f.authority.load()
	return rules, ca, err
}

func (f *fromFiles) agent() identity.Principal { return f.who }

func (f *fromFiles) identify(intake.Flow) (identity.Principal, error) { return f.who, nil }

func (f *fromFiles) follow(ctx context.Context, e *engine, told func(string, bool, error)) {
	items := []watch.Item{{Name: "ca", Files: f.authority.files, Load: func() (bool, error) {
		ca, changed, err := f.authority.reload()
		if err == nil && changed {
			e.useAuthority(ca)
		}
		return changed, err
	}}}
	if f.policies.name != "" {
		items = append(items, watch.Item{Name: "policy", Files: f.policies.files, Load: func() (bool, error) {
			rules, changed, err := f.policies.reload()
			if err == nil && changed {
				e.usePolicy(rules)
			}
			return changed, err
		}})
	}
	watch.New(items, told, f.logger).Run(ctx)
}

// useAuthority makes ca sign every leaf from now on; nil: none is to be had.
func (e *engine) useAuthority(ca *certs.Authority) {
	if ca == nil {
		e.leaves.Withdraw()
		e.metrics.CAWithdrawn()
		return
	}
	e.leaves.Swap(ca)
}

// usePolicy puts rules in force, also for what is under way.
func (e *engine) usePolicy(rules compiled) {
	e.policy.Store(rules.set)
	e.proxy.PolicyChanged()
	e.warn(rules)
}

// warn says what is allowed in a policy and likely not meant.
func (e *engine) warn(rules compiled) {
	for _, w := range rules.warnings {
		e.logger.Warn("policy", "warning", w.String())
	}
	ca := e.leaves.Authority()
	if ca == nil {
		return
	}
	c := ca.Certificate()
	constrained := len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges) > 0
	if constrained && rules.set.For(e.agent()).Observes() {
		e.logger.Warn("observing only what the certificate authority may sign for: it is constrained, and the other hosts stay denied")
	}
}

// reloaded says what came of looking for a change: in readiness, metric and log.
func (d *daemon) reloaded(item string, changed bool, err error) {
	if item == "control" {
		// No cause: while control is away its last word is in force, and pods that
		// serve somebody must not all leave their Services for it.
		d.controlSaid(d.health.note(item, err), err)
		return
	}
	news := d.health.set(item, err)
	switch {
	case err != nil && news:
		switch item {
		case "ca":
			d.metrics.CARejected()
		case "policy":
			d.metrics.PolicyRejected()
		}
		d.logger.Error("what changed does not load; the last good one stays in force", "what", item, "err", oneLine(err.Error()))
	case err == nil && changed:
		ca := d.leaves.Authority()
		switch {
		case item == "policy":
			d.metrics.PolicyLoaded(d.policy.Load().Revision())
		case item == "ca" && ca != nil:
			d.metrics.CALoaded(ca.NotAfter())
		}
		d.logger.Info("reloaded", "what", item, "policy", d.policy.Load().Revision())
	}
}

func (d *daemon) controlSaid(news bool, err error) {
	d.metrics.Control(err == nil)
	switch {
	case news && err != nil:
		d.logger.Error("aegrail-control is away", "err", oneLine(err.Error()))
	case news:
		d.logger.Info("aegrail-control is there")
	}
}
