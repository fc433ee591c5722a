package podca_test

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// follower is what a client of the link keeps up to date.
type follower struct {
	client *link.Client

	mu       sync.Mutex
	revision string               // in force; guarded by mu
	ca       *certs.Authority     // guarded by mu
	wrong    map[link.Part]string // guarded by mu
}

func (e *follower) Compile(u link.Update) (func(), error) {
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.revision = u.Revision
	}, nil
}

func (e *follower) Authority(a *certs.Authority) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ca = a
}

func (e *follower) Report(part link.Part, _ bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if delete(e.wrong, part); err != nil {
		e.wrong[part] = err.Error()
	}
}

// state is what is in force, and what is wrong with the authority.
func (e *follower) state() (revision, permitted, wrong string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	permitted = "none"
	if e.ca != nil {
		permitted = strings.Join(e.ca.Certificate().PermittedDNSDomains, " ")
	}
	return e.revision, permitted, e.wrong[link.PartCA]
}

// serveLink serves w on loopback, and returns how to begin an engine of its pod.
func serveLink(t *testing.T, w *world, policies *podca.Policies) (begin func(edits ...func(*link.ClientOptions)) (_ *follower, end func())) {
	t.Helper()
	backend, err := podca.NewBackend(w.signer, policies)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, elliptic.P256())
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "control"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server, err := link.NewServer(backend, link.ServerOptions{
		Refused: w.recorder.Refused,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	running(t, func(ctx context.Context) {
		if err := server.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return func(edits ...func(*link.ClientOptions)) (*follower, func()) {
		o := link.ClientOptions{
			Address: "localhost:" + port, Trusted: []*x509.Certificate{w.root.cert},
			Roots: func() (*x509.CertPool, error) { return pool, nil }, Token: func() (string, error) { return "good", nil },
		}
		for _, edit := range edits {
			edit(&o)
		}
		client, err := link.NewClient(o)
		if err != nil {
			t.Fatal(err)
		}
		e := &follower{client: client, wrong: map[link.Part]string{}}
		return e, running(t, func(ctx context.Context) { client.Run(ctx, e) })
	}
}

// running runs f until the test ends, or end is called.
func running(t *testing.T, f func(context.Context)) (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	end = func() {
		stop()
		<-done
	}
	t.Cleanup(end)
	return end
}

// An engine, its end of the link, control's, this package and cert-manager's own
// code for a CA issuer, together.
func TestAnEngineFollowsItsPolicyWithWhatCertManagerIssues(t *testing.T) {
	w, policies := newWorld(t), &podca.Policies{}
	begin := serveLink(t, w, policies)
	inForce := func(e *follower, hosts string) {
		t.Helper()
		var revision, permitted, wrong string
		if !enginetest.Eventually(func() bool {
			revision, permitted, wrong = e.state()
			return permitted == hosts && revision != "" && wrong == ""
		}) {
			t.Fatalf("an authority for %q under %q (%s), want one for %q", permitted, revision, wrong, hosts)
		}
	}
	e, end := begin()
	policies.Swap(teams(t, "a.example", "other.example"))
	inForce(e, "a.example")
	policies.Swap(teams(t, "a.example,b.example", "other.example"))
	inForce(e, "a.example b.example")
	policies.Swap(teams(t, "b.example", "other.example"))
	inForce(e, "b.example")
	policies.Swap(compileRules(t, ""))
	inForce(e, "none")
	policies.Swap(teams(t, "a.example", "other.example"))
	inForce(e, "a.example")

	// Whoever else has the token gets nothing while the engine's authority is
	// young; the engine itself does when its container was started anew.
	end()
	again, _ := begin()
	if !enginetest.Eventually(func() bool {
		_, permitted, wrong := again.state()
		return permitted == "none" && strings.Contains(wrong, "one_live_ca")
	}) {
		t.Errorf("another key: %v", again.wrong)
	}
	w.editPod(func(pod *corev1.Pod) {
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "aegrail-engine", RestartCount: 1}}
	})
	inForce(again, "a.example")
}
