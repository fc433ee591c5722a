package enginetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Root is a certificate authority for origins: what a public CA is to the
// engine in the field. It has nothing to do with the engine's own authority.
type Root struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	Pool *x509.CertPool // holds Cert alone
	PEM  []byte         // Cert

	// chain is what a leaf of this authority has to present beside itself:
	// empty for a root, the intermediates below the root else.
	chain   [][]byte
	leafKey crypto.Signer // one key for every leaf: making keys is not what is tested
}

// NewRoot returns a fresh root with the given name in its subject.
func NewRoot(tb testing.TB, name string) *Root {
	tb.Helper()
	key := newKey(tb)
	return newAuthority(tb, name, key, nil, nil)
}

// Intermediate returns an authority that r signed. Its leaves come with the
// chain up to, and without, the root.
func (r *Root) Intermediate(tb testing.TB, name string) *Root {
	tb.Helper()
	return newAuthority(tb, name, newKey(tb), r, nil)
}

// Chain returns an authority that is n intermediates below r. All share one
// key, so that a long chain is cheap to make and no cheaper to verify.
func (r *Root) Chain(tb testing.TB, n int) *Root {
	tb.Helper()
	last := r
	for i := range n {
		last = newAuthority(tb, "aegrail test intermediate "+big.NewInt(int64(i)).String(), r.Key, last, r.leafKey)
	}
	return last
}

func newAuthority(tb testing.TB, name string, key crypto.Signer, parent *Root, leafKey crypto.Signer) *Root {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber:          serial(tb),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	signer, issuer := key, template
	if parent != nil {
		signer, issuer = parent.Key, parent.Cert
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		tb.Fatalf("enginetest: signing the authority %q: %v", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("enginetest: parsing the authority %q: %v", name, err)
	}
	if leafKey == nil {
		leafKey = newKey(tb)
	}
	a := &Root{
		Cert:    cert,
		Key:     key,
		Pool:    x509.NewCertPool(),
		PEM:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		leafKey: leafKey,
	}
	a.Pool.AddCert(cert)
	if parent != nil {
		a.chain = append([][]byte{der}, parent.chain...)
	}
	return a
}

// Leaf says what a certificate is to look like. The zero value is one that
// every client refuses: it has no name.
type Leaf struct {
	Names     []string // DNS names and IP addresses for the subject alternative name
	Subject   string   // common name; "" leaves it out
	NotBefore time.Time
	NotAfter  time.Time               // zero times: an hour ago, in a day
	Usages    []x509.ExtKeyUsage      // nil: serverAuth
	Key       crypto.Signer           // nil: a P-256 key
	Algorithm x509.SignatureAlgorithm // 0: what the authority's key calls for
	Bare      bool                    // leaves the intermediates out of what the server presents
	Change    func(*x509.Certificate) // last word on the template
}

// Certificate returns a good server certificate for names.
func (r *Root) Certificate(tb testing.TB, names ...string) tls.Certificate {
	tb.Helper()
	return r.Issue(tb, Leaf{Names: names})
}

// Issue returns the certificate that l describes, ready for a server.
func (r *Root) Issue(tb testing.TB, l Leaf) tls.Certificate {
	tb.Helper()
	template, key := r.template(tb, l)
	der, err := x509.CreateCertificate(rand.Reader, template, r.Cert, key.Public(), r.Key)
	if err != nil {
		tb.Fatalf("enginetest: signing a certificate for %q: %v", l.Names, err)
	}
	c := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if !l.Bare {
		c.Certificate = append(c.Certificate, r.chain...)
	}
	return c
}

// SelfSigned returns a certificate that only vouches for itself.
func (r *Root) SelfSigned(tb testing.TB, l Leaf) tls.Certificate {
	tb.Helper()
	template, key := r.template(tb, l)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatalf("enginetest: self-signing a certificate for %q: %v", l.Names, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (r *Root) template(tb testing.TB, l Leaf) (*x509.Certificate, crypto.Signer) {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber:       serial(tb),
		Subject:            pkix.Name{CommonName: l.Subject},
		NotBefore:          l.NotBefore,
		NotAfter:           l.NotAfter,
		KeyUsage:           x509.KeyUsageDigitalSignature,
		ExtKeyUsage:        l.Usages,
		SignatureAlgorithm: l.Algorithm,
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, name := range l.Names {
		if ip, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if l.Change != nil {
		l.Change(template)
	}
	key := l.Key
	if key == nil {
		key = r.leafKey
	}
	return template, key
}

// WriteFile writes the root's certificate as PEM below dir, for a flag or a
// variable that wants a file, and returns the name.
func (r *Root) WriteFile(tb testing.TB, dir string) string {
	tb.Helper()
	name := filepath.Join(dir, "origin-root.pem")
	if err := os.WriteFile(name, r.PEM, 0o600); err != nil {
		tb.Fatalf("enginetest: writing the origin root: %v", err)
	}
	return name
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("enginetest: making a key: %v", err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatalf("enginetest: drawing a serial number: %v", err)
	}
	return n.Add(n, big.NewInt(1))
}
