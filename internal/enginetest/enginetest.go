// Package enginetest runs a whole engine on loopback for a test: a real
// certificate authority, real origins, a real log, nothing mocked but DNS.
//
//	e := enginetest.Start(t, nil)
//	r := e.Do(t, e.Client(t), "GET", "allowed.test", "/x", "")
//
// Nil options are ready for use: a policy that lets the agent read at
// allowed.test and chat at api.openai.com, and an origin behind each, and
// behind denied.test, which no rule allows.
//
// # Names and ports
//
// A test's hosts have names that no DNS knows; the harness's Resolver has their
// addresses on loopback, and nothing else is ever resolved. The engine dials
// the port that the request names. An ordinary user cannot listen on 443, so
// origins listen on ports the system picks, URLs carry them (Engine.URL,
// Engine.Authority), and policies are templates that name them:
//
//   - name: read
//     {{to "allowed.test"}}
//     methods: [GET]
//
// where {{to}} stands for the keys hosts, ports, addresses (loopback is refused
// unless a rule names it) and, for an origin without TLS, scheme.
//
// # What every test checks
//
// When a test ends, the harness stops the engine and checks what must hold
// whatever the test was about:
//
//   - the log verifies, by package audit and by a second verifier that shares
//     no code with it;
//   - the origins saw exactly what the log says: requests, methods, paths,
//     digests of bodies;
//   - no name was looked up, and no request reached an origin, before the
//     decision was in the log;
//   - what reached an origin has one spelling: one framing, one Host.
//
// # What it is not
//
// It holds keys and turns safeguards off, so only tests may import it. It is
// no load generator. Redirected (transparent) connections need a kernel's
// rules and are tested elsewhere.
package enginetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
	"github.com/arpitcoder/aegrail-engine/internal/quota"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// Options say what a test needs beside the default. The zero value, and nil,
// are ready for use.
type Options struct {
	Policy string          // a policy file, or a list of rules, with {{to "host"}}; "": the default
	Hosts  map[string]Host // nil: allowed.test, api.openai.com and denied.test

	Observe bool         // the policy's verdict is recorded and not enforced
	Strict  bool         // the log is on the disk, not in the kernel, before a decision is released
	Limits  proxy.Limits // of the client side
	Agents  bool         // the user name in Proxy-Authorization is the agent (Engine.ClientAs); none: refused

	// Root signs the origins' certificates and is what the engine trusts; nil: a
	// fresh one. A test gives it to sign certificates for Hosts beforehand.
	Root *Root

	// Unmatched leaves AssertUpstreamMatchesLog out when the test ends: for a
	// test in which a record is missing on purpose.
	Unmatched bool

	// BreakableLog lets Engine.BreakLog fail the log's writes, as a full disk
	// does.
	BreakableLog bool

	// The last word on each part's configuration.
	Log      func(*audit.Config)
	Upstream func(*upstream.Config)
	Proxy    func(*proxy.Config)
}

// Engine is a running engine and everything around it.
type Engine struct {
	Addr     string // the proxy port, host:port
	LogFile  string
	Root     *Root // what the origins' certificates hang from; the engine trusts it
	CA       *certs.Authority
	CAPool   *x509.CertPool // the engine's authority: what an agent trusts
	Resolver *Resolver
	Leaves   *certs.Store
	Server   *proxy.Server
	Metrics  *metrics.Metrics
	Audit    *audit.Log
	Upstream *upstream.Client

	options Options
	origins map[string]*Origin
	policy  *proxy.PolicySource
	log     *tail
	writer  *breakable // nil unless BreakableLog

	stopServing context.CancelFunc
	served      chan error
	stopped     sync.Once

	mu       sync.Mutex
	problems []string
}

// testAgent is the principal of every connection unless Options.Agents.
const testAgent = "test-agent"

// Start runs an engine until the test ends. o may be nil.
func Start(tb testing.TB, o *Options) *Engine {
	tb.Helper()
	e := &Engine{Resolver: NewResolver(), origins: map[string]*Origin{}, policy: new(proxy.PolicySource)}
	if o != nil {
		e.options = *o
	}
	if e.options.Policy == "" {
		e.options.Policy = defaultPolicy
	}
	if e.options.Hosts == nil {
		e.options.Hosts = map[string]Host{"allowed.test": {}, "api.openai.com": {}, "denied.test": {}}
	}
	e.LogFile = filepath.Join(tb.TempDir(), "audit.jsonl")
	e.log = &tail{file: e.LogFile}
	tb.Cleanup(func() { e.finish(tb) })
	e.startOrigins(tb)
	if err := e.start(tb); err != nil {
		tb.Fatalf("enginetest: starting the engine: %v", err)
	}
	return e
}

func (e *Engine) startOrigins(tb testing.TB) {
	tb.Helper()
	if e.Root = e.options.Root; e.Root == nil {
		e.Root = NewRoot(tb, "enginetest origin root")
	}
	for name, h := range e.options.Hosts {
		o, err := newOrigin(tb, e.Root, name, h)
		if err != nil {
			tb.Fatal(err)
		}
		o.mu.Lock()
		o.arrived = e.checkArrival
		o.mu.Unlock()
		e.origins[name] = o
		e.Resolver.Set(name, o.Addr.Addr())
	}
	e.Resolver.lookup = e.checkLookup
}

// start puts the parts together as the program does.
func (e *Engine) start(tb testing.TB) error {
	tb.Helper()
	logger := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	set, err := e.compile(e.options.Policy)
	if err != nil {
		return err
	}
	e.policy.Store(set)
	if err := e.openLog(logger); err != nil {
		return err
	}
	if err := e.makeAuthority(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e.Addr = ln.Addr().String()
	if err := e.makeUpstream(logger); err != nil {
		return errors.Join(err, ln.Close())
	}
	if e.Metrics, err = metrics.New(metrics.Config{Version: "test", Audit: e.Audit.Stats, Leaves: e.leafStats}); err != nil {
		return errors.Join(err, ln.Close())
	}
	counters, err := quota.New(quota.Config{Now: time.Now})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	limits := e.options.Limits
	limits.Lull = cmp.Or(limits.Lull, time.Millisecond) // tests end with clients that keep connections
	cfg := proxy.Config{
		Policy:   e.policy,
		Log:      e.Audit,
		Leaves:   e.Leaves,
		Upstream: e.Upstream,
		Quota:    counters,
		Identify: e.identify(),
		Metrics:  e.Metrics,
		Logger:   logger,
		Limits:   limits,
	}
	if e.options.Proxy != nil {
		e.options.Proxy(&cfg)
	}
	if e.Server, err = proxy.New(cfg); err != nil {
		return errors.Join(err, ln.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stopServing, e.served = cancel, make(chan error, 1)
	go func() { e.served <- e.Server.Serve(ctx, ln) }()
	return nil
}

func (e *Engine) openLog(logger *slog.Logger) error {
	cfg := audit.Config{File: e.LogFile, Identity: testAgent, Logger: logger}
	if e.options.Strict {
		cfg.Durability = audit.Strict
	}
	if e.options.BreakableLog {
		f, err := os.OpenFile(e.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		e.writer = &breakable{File: f}
		cfg.File, cfg.Stdout = "", e.writer
	}
	if e.options.Log != nil {
		e.options.Log(&cfg)
	}
	log, err := audit.Open(cfg)
	e.Audit = log
	return err
}

func (e *Engine) makeAuthority() error {
	ca, err := certs.NewEphemeral(time.Now())
	if err != nil {
		return err
	}
	e.CA, e.CAPool = ca, x509.NewCertPool()
	if !e.CAPool.AppendCertsFromPEM(ca.RootsPEM()) {
		return errors.New("the engine's authority has no root")
	}
	e.Leaves, err = certs.NewStore(ca, certs.StoreOptions{})
	return err
}

func (e *Engine) makeUpstream(logger *slog.Logger) error {
	cfg := upstream.Config{
		Resolver: e.Resolver,
		Roots:    e.Root.Pool,
		Own:      []netip.AddrPort{netip.MustParseAddrPort(e.Addr)},
		Logger:   logger,
	}
	if e.options.Upstream != nil {
		e.options.Upstream(&cfg)
	}
	client, err := upstream.New(cfg)
	e.Upstream = client
	return err
}

func (e *Engine) identify() identity.Func {
	if e.options.Agents {
		return agentOf
	}
	return identity.Fixed(identity.Principal{AgentIdentity: testAgent})
}

// agentOf is an identity.Func that believes the user name in Basic credentials:
// a stand-in for a gateway's reviewed tokens. A name with a slash is a
// namespace and a service account.
func agentOf(f intake.Flow) (identity.Principal, error) {
	encoded, ok := strings.CutPrefix(f.ProxyAuthorization, "Basic ")
	if !ok {
		return identity.Principal{}, errors.New("no credentials")
	}
	plain, err := base64.StdEncoding.DecodeString(encoded)
	name, _, _ := strings.Cut(string(plain), ":")
	if err != nil || name == "" {
		return identity.Principal{}, errors.New("bad credentials")
	}
	if namespace, account, ok := strings.Cut(name, "/"); ok {
		return identity.Principal{Namespace: namespace, ServiceAccount: account}, nil
	}
	return identity.Principal{AgentIdentity: name}, nil
}

// Origin returns the server behind name.
func (e *Engine) Origin(name string) *Origin {
	o := e.origins[name]
	if o == nil {
		panic(fmt.Sprintf("enginetest: the test has no host %q", name))
	}
	return o
}

func (e *Engine) portOf(name string) (uint16, error) {
	if o := e.origins[name]; o != nil {
		return o.Addr.Port(), nil
	}
	return 0, fmt.Errorf("the test has no host %q", name)
}

// SetPolicy puts another policy in force, as a reload does.
func (e *Engine) SetPolicy(tb testing.TB, text string) {
	tb.Helper()
	if err := e.TrySetPolicy(text); err != nil {
		tb.Fatalf("enginetest: %v", err)
	}
}

// TrySetPolicy is SetPolicy for a text that may not compile: then what was in
// force stays so.
func (e *Engine) TrySetPolicy(text string) error {
	set, err := e.compile(text)
	if err != nil {
		return err
	}
	e.policy.Store(set)
	e.Server.PolicyChanged()
	return nil
}

// Log returns what is in the log now, as package audit reads it.
func (e *Engine) Log(tb testing.TB) []audit.Entry {
	tb.Helper()
	data, err := os.ReadFile(e.LogFile)
	if err != nil {
		tb.Fatalf("reading the audit log: %v", err)
	}
	var entries []audit.Entry
	err = audit.Read(bytes.NewReader(data), func(entry *audit.Entry) error {
		kept := *entry
		kept.Raw = bytes.Clone(entry.Raw)
		entries = append(entries, kept)
		return nil
	})
	if err != nil {
		tb.Fatalf("reading the audit log: %v", err)
	}
	return entries
}

// BreakLog makes the log's writes fail with err from now on; nil repairs it.
// Options.BreakableLog must be set.
func (e *Engine) BreakLog(err error) { e.writer.fail(err) }

// MetricsText returns what a scrape gets now.
func (e *Engine) MetricsText(tb testing.TB) string {
	tb.Helper()
	w := httptest.NewRecorder()
	e.Metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		tb.Fatalf("/metrics: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func (e *Engine) leafStats() metrics.LeafStats {
	s := e.Leaves.Stats()
	return metrics.LeafStats{Hits: s.Hits, Misses: s.Misses, Mints: s.Mints, Size: s.Size}
}

func (e *Engine) problem(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.problems = append(e.problems, fmt.Sprintf(format, args...))
}

// Stop ends the engine as a signal does: what is under way may finish, then the
// log is closed. The origins stay, so that a test can look at them. It is
// called when the test ends.
func (e *Engine) Stop(tb testing.TB) {
	tb.Helper()
	e.stopped.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if e.stopServing != nil {
			e.stopServing()
			if err := <-e.served; err != nil {
				tb.Errorf("serving: %v", err)
			}
			if err := e.Server.Shutdown(ctx); err != nil {
				tb.Errorf("shutting down: %v", err)
			}
		}
		if e.Upstream != nil {
			e.Upstream.Close()
		}
		if e.Audit != nil {
			if err := e.Audit.Close(); err != nil && e.writer == nil {
				tb.Errorf("closing the log: %v", err)
			}
		}
		if e.writer != nil {
			_ = e.writer.Close()
		}
	})
}

// finish stops everything and checks what must hold for any test.
func (e *Engine) finish(tb testing.TB) {
	tb.Helper()
	e.Stop(tb)
	if e.Audit != nil {
		e.VerifyLog(tb)
		if !e.options.Unmatched {
			e.AssertUpstreamMatchesLog(tb)
		}
	}
	for _, o := range e.origins {
		o.Close()
		for _, p := range o.problems {
			tb.Errorf("what arrived at %s", p)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.problems {
		tb.Error(p)
	}
}

// breakable is a log's file whose writes can be made to fail.
type breakable struct {
	*os.File
	mu  sync.Mutex
	err error
}

func (b *breakable) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *breakable) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return 0, b.err
	}
	return b.File.Write(p)
}
