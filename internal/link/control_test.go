package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/arpitcoder/aegrail-engine/certs"
)

// control is a Backend with a real certificate authority: what aegrail-control,
// the API server and cert-manager are to an engine.
type control struct {
	root     *x509.Certificate
	rootKey  *ecdsa.PrivateKey
	life     time.Duration           // of an intermediate
	issue    func(*x509.Certificate) // what the issuer does wrong; nil: nothing
	mu       sync.Mutex
	tokens   map[string]Pod    // guarded by mu
	policies map[string]Policy // :: pod's UID → policy; guarded by mu
	changed  chan struct{}     // guarded by mu
	signed   []string          // revisions; guarded by mu
	fault    error             // of Sign; guarded by mu
	reviews  int               // calls of Authenticate; guarded by mu
	hang     chan struct{}     // Sign waits for its end, if not nil; guarded by mu
}

func newControl(t *testing.T) *control {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "namespace root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return &control{
		root: newCert(t, tmpl, tmpl, &key.PublicKey, key), rootKey: key, life: 24 * time.Hour,
		tokens: map[string]Pod{}, policies: map[string]Policy{}, changed: make(chan struct{}),
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCert(t *testing.T, tmpl, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// knows makes token stand for pod.
func (c *control) knows(token string, pod Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[token] = pod
}

// rules puts p in force for the pod with uid.
func (c *control) rules(uid string, p Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policies[uid] = p
	close(c.changed)
	c.changed = make(chan struct{})
}

// asked is how many tokens were looked at.
func (c *control) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reviews
}

func (c *control) Authenticate(_ context.Context, token string) (Pod, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reviews++
	pod, ok := c.tokens[token]
	if !ok {
		return Pod{}, Refuse(Unauthenticated, "bad_token", "the token is not valid for audience aegrail-control; mount a projected token with that audience")
	}
	return pod, nil
}

func (c *control) Policy(pod Pod) (Policy, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.policies[pod.UID]
	if !ok {
		return Policy{}, nil, Refuse(Denied, "not_injected", "pod %s/%s has no engine of ours", pod.Namespace, pod.Name)
	}
	return p, c.changed, nil
}

func (c *control) Sign(ctx context.Context, _ Pod, csrDER []byte, revision string) (Intermediate, error) {
	c.mu.Lock()
	fault, hang := c.fault, c.hang
	c.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return Intermediate{}, ctx.Err()
		}
	}
	if fault != nil {
		return Intermediate{}, fault
	}
	request, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return Intermediate{}, err
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{ // as cert-manager's CA issuer: subject and constraints as they come
		SerialNumber: serial, RawSubject: request.RawSubject, ExtraExtensions: request.Extensions,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(c.life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PublicKey: request.PublicKey,
	}
	c.mu.Lock()
	if c.issue != nil {
		c.issue(tmpl)
	}
	c.signed = append(c.signed, revision)
	c.mu.Unlock()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.root, tmpl.PublicKey, c.rootKey)
	if err != nil {
		return Intermediate{}, err
	}
	return Intermediate{Chain: [][]byte{der, c.root.Raw}, RenewAfter: time.Now().Add(c.life / 3 * 2)}, nil
}

// permits is the template of a policy that allows hosts.
func permits(t *testing.T, hosts ...string) Template {
	t.Helper()
	subject, err := asn1.Marshal(pkix.Name{CommonName: "aegrail-engine pod CA"}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	if len(hosts) == 0 {
		return Template{RawSubject: subject, Unconstrained: true}
	}
	der, err := certs.NameConstraints(hosts)
	if err != nil {
		t.Fatal(err)
	}
	return Template{RawSubject: subject, NameConstraints: der}
}

// served is a Server on loopback.
type served struct {
	*control
	backend Backend // nil: control
	address string  // localhost:port
	stop    func()  // may be called twice

	mu      sync.Mutex
	roots   *x509.CertPool // what control's certificate is verified by; guarded by mu
	refused []Refused      // guarded by mu
}

// serve runs a Server with c until the test ends.
func serve(t *testing.T, c *control, o ServerOptions) *served {
	t.Helper()
	s := &served{control: c, address: "localhost:0"}
	s.begin(t, o)
	return s
}

// begin serves at the address, with a certificate of its own.
func (s *served) begin(t *testing.T, o ServerOptions) {
	t.Helper()
	key, tmpl := newKey(t), &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "control"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert := newCert(t, tmpl, tmpl, &key.PublicKey, key)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	s.mu.Lock()
	s.roots = roots
	s.mu.Unlock()
	o.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, nil
	}
	o.Refused = func(r Refused) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused = append(s.refused, r)
	}
	var backend Backend = s.control
	if s.backend != nil {
		backend = s.backend
	}
	server, err := NewServer(backend, o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", s.address)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.address = net.JoinHostPort("localhost", port)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, ln) }()
	s.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	t.Cleanup(s.stop)
}

// pool is what control's certificate is verified by now.
func (s *served) pool() (*x509.CertPool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roots, nil
}

// refusals are what the server recorded.
func (s *served) refusals() []Refused {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Refused(nil), s.refused...)
}

// dial is a connection as anybody could make one.
func (s *served) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	pool, err := s.pool()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "localhost"})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// as is a context whose calls carry token.
func as(t *testing.T, token string) context.Context {
	ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(done)
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}
