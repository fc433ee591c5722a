package podca_test

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// engine is the other end of the link: it takes what it is given.
type engine struct{ authorities chan *certs.Authority }

func (e *engine) Compile(link.Update) (func(), error) { return func() {}, nil }
func (e *engine) Authority(a *certs.Authority)        { e.authorities <- a }
func (e *engine) Report(link.Part, bool, error)       {}

// serveLink runs control's end for w, and returns what an engine needs to reach it.
func (w *world) serveLink(policies *podca.Policies) link.ClientOptions {
	w.t.Helper()
	key := newKey(w.t, elliptic.P256())
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "control"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	backend, err := podca.NewBackend(w.signer, policies)
	if err != nil {
		w.t.Fatal(err)
	}
	presented := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server, err := link.NewServer(backend, link.ServerOptions{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return presented, nil }, Refused: w.recorder.Refused, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, ln) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return link.ClientOptions{
		Address: net.JoinHostPort("localhost", port), Roots: func() (*x509.CertPool, error) { return pool, nil }, Trusted: []*x509.Certificate{w.root.cert},
	}
}

// connect runs an engine with a token until the test ends.
func (w *world) connect(o link.ClientOptions, token string) *engine {
	w.t.Helper()
	e := &engine{make(chan *certs.Authority, 10)}
	o.Token = func() (string, error) { return token, nil }
	client, err := link.NewClient(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx, e) }()
	w.t.Cleanup(func() { stop(); <-done })
	return e
}

// await returns the next authority that permits host.
func (e *engine) await(t *testing.T, host string) *certs.Authority {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case a := <-e.authorities:
			if a != nil && a.Permits(host) {
				return a
			}
		case <-deadline:
			t.Fatalf("no authority that permits %s", host)
		}
	}
}

func TestAnEngineIsGivenItsAuthorityOverTheLink(t *testing.T) {
	w := newWorld(t)
	policies := &podca.Policies{}
	policies.Swap(teams(t, "a.example", "secret.example"))
	e := w.connect(w.serveLink(policies), "good")
	if a := e.await(t, "a.example"); a.Permits("b.example") || a.Permits("secret.example") || a.Permits("192.0.2.1") {
		t.Error("the authority permits more than the policy")
	}
	policies.Swap(teams(t, "a.example,b.example", "secret.example"))
	if a := e.await(t, "b.example"); a.Permits("secret.example") {
		t.Error("the authority permits more than the policy")
	}
	if n := w.count("signed"); n != 2 {
		t.Errorf("%d were signed", n)
	}
}

// TestK08AStolenTokenGetsNothingOverTheLink also looks whether the link's server
// tells of what podca refuses.
func TestK08AStolenTokenGetsNothingOverTheLink(t *testing.T) {
	w := newWorld(t)
	policies := &podca.Policies{}
	policies.Swap(teams(t, "a.example", "b.example"))
	w.reviews["stolen"] = tokenOf(podca.Audience, "support-bot", "bot-1", "another-uid")
	e := w.connect(w.serveLink(policies), "stolen")
	select {
	case event := <-w.events.Events:
		if !strings.Contains(event, "Warning EngineRefused pod_uid") {
			t.Errorf("event %q", event)
		}
	case <-time.After(time.Minute):
		t.Fatal("no event on the pod")
	}
	if w.count("pod_uid") == 0 || len(e.authorities) > 0 || len(w.created) > 0 {
		t.Errorf("counted %d, %d authorities, %d requests", w.count("pod_uid"), len(e.authorities), len(w.created))
	}
}
