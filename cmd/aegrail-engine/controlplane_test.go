package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// plane is aegrail-control as an engine meets it: real policies, a real
// certificate authority, for one pod that it knows by one token.
type plane struct {
	namespace *enginetest.Root // of the pod's namespace: what its clients trust
	serving   *enginetest.Root // control's own certificate hangs from it
	address   string           // localhost:port
	dir       string           // control-ca.crt, ca-bundle.pem and token

	mu      sync.Mutex
	token   string        // guarded by mu
	policy  link.Policy   // guarded by mu
	changed chan struct{} // guarded by mu
	life    time.Duration // of an intermediate; guarded by mu
	fault   error         // of Sign; guarded by mu
	hang    chan struct{} // Sign waits for it; guarded by mu
	signed  int           // guarded by mu
	stop    func()

	gateway bool                // the engine is one; guarded by mu
	callers map[string]link.Pod // of it, by token or address; guarded by mu
}

func newPlane(tb testing.TB, dir string, namespace, serving *enginetest.Root) *plane {
	tb.Helper()
	p := &plane{
		namespace: namespace, serving: serving, address: "localhost:0", dir: dir,
		changed: make(chan struct{}), life: 24 * time.Hour, stop: func() {},
		policy: link.Policy{Revision: "none"}, callers: map[string]link.Pod{},
	}
	for name, data := range map[string][]byte{"control-ca.crt": serving.PEM, bundleFile: namespace.PEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return p
}

// flags are what an engine of p is started with.
func (p *plane) flags() []string {
	return []string{
		"--control=" + p.address, "--control-ca=" + filepath.Join(p.dir, "control-ca.crt"),
		"--control-token=" + filepath.Join(p.dir, "token"), "--enforcement=advisory",
	}
}

// begin serves at the address of p.
func (p *plane) begin() error {
	leaf := p.serving.Cert
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"localhost"}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}, leaf, p.serving.Key.Public(), p.serving.Key)
	if err != nil {
		return err
	}
	server, err := link.NewServer(p, link.ServerOptions{
		Refused:  func(link.Refused) {},
		SignEach: link.Rate{PerSecond: 100, Burst: 1000}, PolicyEach: link.Rate{PerSecond: 100, Burst: 1000},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: p.serving.Key}, nil
		},
	})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", p.address)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return err
	}
	p.address = "localhost:" + port
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(ctx, ln)
	}()
	p.stop = func() {
		cancel()
		<-ended
	}
	return nil
}

// knows makes token the pod's.
func (p *plane) knows(token string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
	return os.WriteFile(filepath.Join(p.dir, "token"), []byte(token), 0o600)
}

// set changes what control has, under its lock.
func (p *plane) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// rules puts the text of a policy in force, as control does: what the
// certificate authority must be comes from the compiled policy.
func (p *plane) rules(revision, text string) error {
	next := link.Policy{YAML: []byte(text), Revision: revision}
	if docs, err := v1alpha1.Parse(revision, next.YAML); err == nil {
		set, _, err := policy.Compile(docs, policy.Options{})
		if err != nil {
			return err
		}
		var hosts []string // of every account in these tests
		for _, account := range []string{"bot", "other"} {
			hosts = append(hosts, set.For(identity.Principal{Namespace: "support", ServiceAccount: account}).Inspected()...)
		}
		p.set(func() {
			if p.gateway {
				hosts = append(hosts, gatewayName)
			}
		})
		if next.Template, err = templateFor(hosts); err != nil {
			return err
		}
	} // else: a control that is wrong
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policy = next
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// gatewayName is what a gateway's authority is for besides the hosts of its policy.
const gatewayName = "proxy.internal.test"

func templateFor(hosts []string) (t link.Template, err error) {
	if len(hosts) == 0 {
		return t, nil
	}
	if t.RawSubject, err = asn1.Marshal(pkix.Name{CommonName: "pod bot-1"}.ToRDNSequence()); err != nil {
		return t, err
	}
	t.NameConstraints, err = certs.NameConstraints(hosts)
	return t, err
}

func (p *plane) Authenticate(_ context.Context, token string) (link.Pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if token != p.token {
		return link.Pod{}, link.Refuse(link.Unauthenticated, "bad_token", "the token is not one of ours")
	}
	if p.gateway {
		return link.Pod{Namespace: "support", Name: "gateway-1", UID: "2", Gateway: true}, nil
	}
	return link.Pod{Namespace: "support", Name: "bot-1", UID: "1", ServiceAccount: "bot", Claimed: "helper"}, nil
}

func (p *plane) Policy(link.Pod) (link.Policy, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy, p.changed, nil
}

func (p *plane) Sign(ctx context.Context, _ link.Pod, csrDER []byte, _ string) (link.Intermediate, error) {
	p.mu.Lock()
	life, fault, hang := p.life, p.fault, p.hang
	p.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return link.Intermediate{}, ctx.Err()
		}
	}
	request, err := x509.ParseCertificateRequest(csrDER)
	if err = errors.Join(fault, err); err != nil {
		return link.Intermediate{}, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), RawSubject: request.RawSubject, ExtraExtensions: request.Extensions,
		NotBefore: now, NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, p.namespace.Cert, request.PublicKey, p.namespace.Key)
	p.set(func() { p.signed++ })
	return link.Intermediate{Chain: [][]byte{der, p.namespace.Cert.Raw}}, err
}

func (p *plane) Review(_ context.Context, _ link.Pod, who link.Caller) (link.Pod, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := who.Token
	if key == "" {
		key = who.Address.String()
	}
	pod, ok := p.callers[key]
	if !ok {
		return link.Pod{}, link.Refuse(link.Denied, "unknown_caller", "no pod of ours; mount a token for audience aegrail-gateway")
	}
	return pod, nil
}

// serves makes the engine a gateway, with a certificate that its callers trust,
// in gateway.crt and gateway.key.
func (p *plane) serves(tb testing.TB) error {
	p.set(func() { p.gateway = true })
	pair := p.namespace.Certificate(tb, "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(p.dir, "gateway.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600),
		os.WriteFile(filepath.Join(p.dir, "gateway.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

type planeKey struct{}

// cmdControl is aegrail-control in a script:
//
//	control start         begin, or begin again; sets CONTROL (localhost:port), makes the directory pod
//	control stop
//	control policy FILE   put FILE in force
//	control token NAME    know the pod by another token, and give it that
//	control faulty | well every signature fails, or does not
//	control gateway       the engine is a gateway; makes pod/gateway.crt and .key
//	control caller WHAT ACCOUNT  a token or an address is of a pod of ACCOUNT
func cmdControl(namespace, serving *enginetest.Root, tb testing.TB) script {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: control start|stop|policy FILE|token NAME|faulty|well|gateway|caller WHAT ACCOUNT")
		}
		p, _ := ts.Value(planeKey{}).(**plane)
		if *p == nil {
			dir := ts.MkAbs("pod")
			ts.Check(os.MkdirAll(dir, 0o700))
			*p = newPlane(tb, dir, namespace, serving)
			ts.Check((*p).knows("the pod's token"))
		}
		c := *p
		switch args[0] {
		case "start":
			ts.Check(c.begin())
			stop := sync.OnceFunc(c.stop)
			c.stop = stop
			ts.Defer(stop)
			ts.Setenv("CONTROL", c.address)
		case "stop":
			c.stop()
		case "policy":
			ts.Check(c.rules(args[1], ts.ReadFile(args[1])))
		case "token":
			ts.Check(c.knows(args[1]))
		case "gateway":
			ts.Check(c.serves(tb))
		case "caller":
			c.set(func() {
				c.callers[args[1]] = link.Pod{Namespace: "support", ServiceAccount: args[2], Name: args[2] + "-1"}
			})
		case "faulty":
			c.set(func() { c.fault = errors.New("cert-manager is away") })
		case "well":
			c.set(func() { c.fault = nil })
		}
	}
}
