package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// fromControl is aegrail-control: it says whose pod this is and what its policy
// is, and has an authority signed for a key that is in memory alone.
//
// Until it has spoken for the first time there is no policy, everything is
// refused and recorded, and /readyz says so, on which a startup probe waits.
type fromControl struct {
	address              string
	rootsFile, tokenFile string
	trustFile            string // the bundle that the pod's clients trust; "": not known
	gateway              bool   // for every pod of a namespace
	dial                 func(ctx context.Context, network, address string) (net.Conn, error)
	options              policy.Options
	before               identity.Principal // whose connections are before control has said
	logger               *slog.Logger

	who    atomic.Pointer[identity.Principal]
	client *link.Client

	reviewed identity.Func // of a gateway
}

func (f *fromControl) first() (compiled, *certs.Authority, error) {
	if _, err := f.roots(); err != nil {
		return compiled{}, nil, badInput(err)
	}
	trusted, err := f.trusted()
	if err != nil {
		return compiled{}, nil, badInput(fmt.Errorf("--control-trust %s: %w", f.trustFile, err))
	}
	f.client, err = link.NewClient(link.ClientOptions{
		Address: f.address, Roots: f.roots, Token: f.token, Trusted: trusted, Dial: f.dial, Gateway: f.gateway, Version: readBuild().version, Logger: f.logger,
	})
	return compiled{}, nil, badInput(err)
}

// trusted are the roots that the pod's clients trust, as they read them: once,
// at the start. Nil: not known.
func (f *fromControl) trusted() ([]*x509.Certificate, error) {
	if f.trustFile == "" {
		return nil, nil
	}
	data, err := readFile("bundle that the pod's clients trust", f.trustFile)
	if err != nil {
		return nil, err
	}
	list := certs.Certificates(data)
	if len(list) == 0 {
		return nil, errors.New("it holds no PEM certificate")
	}
	return list, nil
}

func (f *fromControl) agent() identity.Principal {
	if who := f.who.Load(); who != nil {
		return *who
	}
	return f.before
}

func (f *fromControl) identify(flow intake.Flow) (identity.Principal, error) {
	if f.gateway {
		return f.reviewed(flow)
	}
	return f.agent(), nil
}

func (f *fromControl) follow(ctx context.Context, e *engine, told func(string, bool, error)) {
	f.client.Run(ctx, &linked{from: f, engine: e, told: told})
}

// roots is what control's certificate is verified by. Nothing else is, and
// nothing else verifies it.
func (f *fromControl) roots() (*x509.CertPool, error) {
	data, err := readFile("roots of aegrail-control", f.rootsFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("--control-ca %s holds no PEM certificate", f.rootsFile)
	}
	return pool, nil
}

func (f *fromControl) token() (string, error) {
	data, err := readFile("token for aegrail-control", f.tokenFile)
	return string(data), err
}

// compile makes a set of what control sent. It may name no file: the roots of a
// rule would be the engine's files, not control's.
func (f *fromControl) compile(u link.Update) (c compiled, err error) {
	if len(u.YAML) > 0 {
		if c.docs, err = v1alpha1.Parse("control", u.YAML); err != nil {
			return c, err
		}
	}
	c.set, c.warnings, err = policy.Compile(c.docs, f.options)
	return c, err
}

// linked is an engine as package link sees it.
type linked struct {
	from   *fromControl
	engine *engine
	told   func(item string, changed bool, err error)
}

// Compile is link.Engine's.
func (l *linked) Compile(u link.Update) (live func(), err error) {
	rules, err := l.from.compile(u)
	if err != nil {
		return nil, err
	}
	who := principalOf(u.Pod)
	return func() {
		l.from.who.Store(&who) // first: the new policy knows nobody else
		l.engine.usePolicy(rules)
		l.engine.logger.Info("policy from aegrail-control", "revision", u.Revision, "agent", who.ID(), "pod", who.Pod)
	}, nil
}

// Authority is link.Engine's.
func (l *linked) Authority(a *certs.Authority) { l.engine.useAuthority(a) }

// Report is link.Engine's.
func (l *linked) Report(part link.Part, changed bool, err error) { l.told(string(part), changed, err) }
