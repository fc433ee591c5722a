package fuzz

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
	"github.com/arpitcoder/aegrail-engine/internal/quota"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// engine is a whole engine and an origin behind it, for inputs that have to be
// sent. It serves all inputs of a process, so it keeps nothing of any: that no
// request arrives before its decision is in the log is checked by counting.
// (enginetest checks more, and keeps everything for it.)
type engine struct {
	authority string // of the one host there is; its port differs from run to run
	addr      string
	client    *tls.Config // what an agent speaks inside CONNECT; resumes

	mu       sync.Mutex
	decided  int // decisions to allow in the log, one for each attempt
	arrived  int // requests at the origin
	problems []string
}

const (
	fuzzedHost = "allowed.test"
	patience   = 30 * time.Second // for what must happen
)

// startEngine runs an engine until the end of f. Rules is a list as a policy
// file has it, with %s for what every rule for the host begins with.
func startEngine(f *testing.F, rules string, protocols []string, h http.Handler) *engine {
	f.Helper()
	e := new(engine)
	root := enginetest.NewRoot(f, "fuzz origin root")
	origin := e.startOrigin(f, root.Certificate(f, fuzzedHost), protocols, h)
	port := origin.Addr().(*net.TCPAddr).Port
	e.authority = fmt.Sprintf("%s:%d", fuzzedHost, port)
	cfg := proxy.Config{
		Policy:   new(proxy.PolicySource),
		Identify: identity.Fixed(identity.Principal{AgentIdentity: "fuzz"}),
		Logger:   slog.New(panicWatch{e}),
	}
	must := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	head := fmt.Sprintf("hosts: [%s]\n      ports: [%d]\n      addresses: [127.0.0.0/8]", fuzzedHost, port)
	docs, err := v1alpha1.Parse("fuzz.yaml", []byte("apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: fuzz}\nspec:\n  rules:\n"+strings.ReplaceAll(rules, "%s", head)))
	must(err)
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true})
	must(err)
	cfg.Policy.Store(set)
	cfg.Log, err = audit.Open(audit.Config{
		Stdout: decisions{e}, Identity: "fuzz", Logger: cfg.Logger,
		Refusals: audit.RefusalLimits{Rate: 1 << 30, Burst: 1 << 30}, // all inputs are one agent's
	})
	must(err)
	ca, err := certs.NewEphemeral(time.Now())
	must(err)
	cfg.Leaves, err = certs.NewStore(ca, certs.StoreOptions{})
	must(err)
	resolver, roots := enginetest.NewResolver(), x509.NewCertPool()
	resolver.Set(fuzzedHost, origin.Addr().(*net.TCPAddr).AddrPort().Addr())
	roots.AddCert(root.Cert)
	cfg.Upstream, err = upstream.New(upstream.Config{Resolver: resolver, Roots: roots, Logger: cfg.Logger})
	must(err)
	cfg.Quota, err = quota.New(quota.Config{Now: time.Now})
	must(err)
	cfg.Metrics, err = metrics.New(metrics.Config{Version: "fuzz", Audit: cfg.Log.Stats, Leaves: func() metrics.LeafStats { return metrics.LeafStats{} }})
	must(err)
	server, err := proxy.New(cfg)
	must(err)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(err)
	e.addr = ln.Addr().String()
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(ca.RootsPEM())
	e.client = &tls.Config{RootCAs: trust, ServerName: fuzzedHost, NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	f.Cleanup(func() {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(<-served, server.Shutdown(ctx)); err != nil {
			f.Error(err)
		}
		cfg.Upstream.Close()
		_ = cfg.Log.Close()
	})
	return e
}

func (e *engine) startOrigin(f *testing.F, cert tls.Certificate, protocols []string, h http.Handler) net.Listener {
	f.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	s := &http.Server{
		ReadHeaderTimeout: patience,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e.arrives(r)
			h.ServeHTTP(w, r)
		}),
	}
	go func() { _ = s.ServeTLS(ln, "", "") }() // until it is closed
	f.Cleanup(func() { _ = s.Close() })
	return ln
}

// arrives counts a request at the origin.
func (e *engine) arrives(r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.arrived++; e.arrived > e.decided {
		e.problems = append(e.problems, fmt.Sprintf("%s %s arrived, the %d. request; %d were decided", r.Method, r.URL, e.arrived, e.decided))
	}
}

// check fails t with what has been noticed so far.
func (e *engine) check(t *testing.T, input any) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.problems) > 0 {
		t.Fatalf("%q: %s", input, strings.Join(e.problems, "\n"))
	}
}

// dial opens a connection to the host through the engine.
func (e *engine) dial(ctx context.Context) (*tls.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp4", e.addr)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(raw, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", e.authority); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	// The server side of TLS waits for us: what can be read is the answer alone.
	var answer []byte
	for b := make([]byte, 1<<10); !bytes.HasSuffix(answer, []byte("\r\n\r\n")); {
		n, err := raw.Read(b)
		if answer = append(answer, b[:n]...); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
	}
	c := tls.Client(raw, e.client)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("CONNECT was answered %q: %w", answer, err), raw.Close())
	}
	return c, nil
}

// decisions is the log: an io.Writer of whole records that counts.
type decisions struct{ e *engine }

func (d decisions) Write(p []byte) (int, error) {
	d.e.mu.Lock()
	defer d.e.mu.Unlock()
	for line := range bytes.Lines(p) {
		if bytes.Contains(line, []byte(`"event":"egress_allowed"`)) && bytes.Contains(line, []byte(`"phase":"decision"`)) {
			d.e.decided++
		}
	}
	return len(p), nil
}

// panicWatch is the engine's logger: it takes what tells of a panic for a problem.
type panicWatch struct{ e *engine }

func (panicWatch) Enabled(context.Context, slog.Level) bool { return true }
func (p panicWatch) WithAttrs([]slog.Attr) slog.Handler     { return p }
func (p panicWatch) WithGroup(string) slog.Handler          { return p }

func (p panicWatch) Handle(_ context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, "panic") {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	p.e.problems = append(p.e.problems, text)
	return nil
}
