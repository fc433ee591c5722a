package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
)

// minRSABits is the smallest RSA key a CA may have; crypto/tls clients refuse less than 1024, auditors less than 2048.
const minRSABits = 2048

// Authority is a CA that can sign leaves. It is immutable and safe for concurrent use; make it with New, one of the Load
// functions or NewEphemeral. The zero value signs nothing: Mint returns an error.
//
// Whatever way it is printed, logged or marshalled, an Authority shows its subject, fingerprint and expiry alone.
type Authority struct {
	cert  *x509.Certificate
	roots []*x509.Certificate // what clients are told to trust
	sent  [][]byte            // DER of what follows the leaf in a handshake: cert and intermediates, no self-signed root

	// path is cert and what is above it up to a root: its constraints and validities bind each leaf.
	path                []*x509.Certificate
	notBefore, notAfter time.Time

	// sign hashes as the CA's algorithm wants and signs. A closure, because a closure cannot be printed: an ed25519 key in a
	// field would be shown byte for byte by fmt when the struct is inside another one.
	sign func(tbs []byte) ([]byte, error)
	form leafForm
}

// New makes an Authority of a signing certificate (the first of chain), the intermediates above it in order, the signer's key
// and the roots that clients trust. A self-signed certificate in chain counts as a root. Without any root the topmost certificate
// of chain is the trust anchor, which Go, Java and Node accept and OpenSSL accepts only with -partial_chain.
//
// The error says what keeps the CA from signing: not a CA, no certSign, expired, not yet valid, the key of another
// certificate, a key type that is not taken, a chain that does not verify.
func New(chain []*x509.Certificate, key crypto.Signer, roots []*x509.Certificate, now time.Time) (*Authority, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	if key == nil {
		return nil, errors.New("no private key")
	}
	a := &Authority{cert: chain[0], roots: slices.Clone(roots)}
	if err := checkKey(a.cert, key); err != nil {
		return nil, err
	}
	if err := checkSigner(a.cert, now); err != nil {
		return nil, err
	}
	for _, c := range chain {
		if !selfSigned(c) {
			a.sent = append(a.sent, c.Raw)
		} else if !containsCert(a.roots, c) {
			a.roots = append(a.roots, c)
		}
	}
	if len(a.roots) == 0 {
		a.roots = []*x509.Certificate{chain[len(chain)-1]}
	}
	if err := a.findPath(chain, now); err != nil {
		return nil, err
	}
	if err := a.rehearse(chain, key, now); err != nil {
		return nil, err
	}
	return a, nil
}

// checkKey refuses key types that are not taken and a key that is not the certificate's.
func checkKey(cert *x509.Certificate, key crypto.Signer) error {
	type equaler interface{ Equal(crypto.PublicKey) bool } // implemented by each public key of the standard library
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() && pub.Curve != elliptic.P384() {
			return fmt.Errorf("CA key is ECDSA %s; use P-256 or P-384", pub.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSABits {
			return fmt.Errorf("CA key is RSA with %d bits; use at least %d, or ECDSA P-256", n, minRSABits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("CA key is a %T; use ECDSA P-256 or P-384, RSA or Ed25519", pub)
	}
	if pub, ok := key.Public().(equaler); !ok || !pub.Equal(cert.PublicKey) {
		return fmt.Errorf("key mismatch: the private key does not belong to certificate %q (the signing certificate must come first)", cert.Subject)
	}
	return nil
}

// checkSigner says why cert may not sign certificates at now (RFC 5280, 4.2.1.3 and 4.2.1.9). A certificate without a key
// usage extension is taken, as crypto/x509 and OpenSSL take it: `openssl req -x509` writes none.
func checkSigner(cert *x509.Certificate, now time.Time) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return fmt.Errorf("certificate %q is not a CA (basic constraints lack CA:TRUE)", cert.Subject)
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("CA %q may not sign certificates: its key usage lacks certSign (keyCertSign)", cert.Subject)
	case now.Before(cert.NotBefore):
		return fmt.Errorf("CA %q is not yet valid: it begins at %s and the clock says %s", cert.Subject, stamp(cert.NotBefore), stamp(now))
	case now.After(cert.NotAfter):
		return fmt.Errorf("CA %q expired at %s and the clock says %s", cert.Subject, stamp(cert.NotAfter), stamp(now))
	}
	return nil
}

// findPath finds the chain from the signer to a root that stays valid longest and notes what it leaves to a leaf.
func (a *Authority) findPath(chain []*x509.Certificate, now time.Time) error {
	rootPool, interPool := a.pools(chain)
	found, err := a.cert.Verify(x509.VerifyOptions{
		Roots: rootPool, Intermediates: interPool, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("CA %q does not chain to its root %q: %w", a.cert.Subject, a.roots[0].Subject, err)
	}
	for _, path := range found {
		notBefore, notAfter := path[0].NotBefore, path[0].NotAfter
		for _, c := range path[1:] {
			if c.NotBefore.After(notBefore) {
				notBefore = c.NotBefore
			}
			if c.NotAfter.Before(notAfter) {
				notAfter = c.NotAfter
			}
		}
		if a.path == nil || notAfter.After(a.notAfter) {
			a.path, a.notBefore, a.notAfter = path, notBefore, notAfter
		}
	}
	return nil
}

// rehearse mints one leaf the fast way and proves that it is what crypto/x509 would have issued and that it verifies.
func (a *Authority) rehearse(chain []*x509.Certificate, key crypto.Signer, now time.Time) error {
	host, ok := a.permittedName()
	if !ok {
		return fmt.Errorf("CA %q can sign for nobody: its name constraints permit no DNS name and no address", a.cert.Subject)
	}
	leafKey, err := NewLeafKey()
	if err != nil {
		return err
	}
	if a.form, err = newLeafForm(a.cert, key, host, leafKey, now); err != nil {
		return fmt.Errorf("CA %q: rehearsing a leaf: %w", a.cert.Subject, err)
	}
	a.sign = signWith(key, a.form.hash)
	leaf, err := a.Mint(host, leafKey, now)
	if err != nil {
		return fmt.Errorf("CA %q: rehearsing a leaf: %w", a.cert.Subject, err)
	}
	rootPool, interPool := a.pools(chain)
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: rootPool, Intermediates: interPool, CurrentTime: now}); err != nil {
		return fmt.Errorf("CA %q: a leaf it signs does not verify: %w", a.cert.Subject, err)
	}
	return nil
}

// pools are the roots, and all of chain (x509 ignores what it does not need).
func (a *Authority) pools(chain []*x509.Certificate) (roots, intermediates *x509.CertPool) {
	roots, intermediates = x509.NewCertPool(), x509.NewCertPool()
	for _, c := range a.roots {
		roots.AddCert(c)
	}
	for _, c := range chain {
		intermediates.AddCert(c)
	}
	return roots, intermediates
}

// signWith is the only place that holds the CA's key. hash 0 means that the message itself is signed (Ed25519).
func signWith(key crypto.Signer, hash crypto.Hash) func([]byte) ([]byte, error) {
	return func(tbs []byte) ([]byte, error) {
		if hash != 0 {
			h := hash.New()
			h.Write(tbs)
			tbs = h.Sum(nil)
		}
		return key.Sign(rand.Reader, tbs, hash)
	}
}

// Certificate is the signing certificate. It is shared: do not modify it.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Roots are the certificates that clients are to trust. They are shared: do not modify them.
func (a *Authority) Roots() []*x509.Certificate { return slices.Clone(a.roots) }

// RootsPEM is Roots as PEM, the extra part of a trust bundle (see Bundle).
func (a *Authority) RootsPEM() []byte {
	var out []byte
	for _, c := range a.roots {
		out = append(out, encodeCert(c.Raw)...)
	}
	return out
}

// NotAfter is when the CA can sign no more: the earliest expiry from the signer up to its root.
func (a *Authority) NotAfter() time.Time { return a.notAfter }

// Fingerprint is the SHA-256 of the signing certificate, in hex.
func (a *Authority) Fingerprint() string {
	if a == nil || a.cert == nil {
		return ""
	}
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Equal reports whether both sign with the same certificate, send the same chain and trust the same roots. A watcher that
// sees one change of a Secret as several events need not drop its leaves for each.
func (a *Authority) Equal(b *Authority) bool {
	if a == nil || b == nil {
		return a == b
	}
	same := func(x, y *x509.Certificate) bool { return x.Equal(y) }
	return a.cert.Equal(b.cert) && slices.EqualFunc(a.sent, b.sent, bytes.Equal) && slices.EqualFunc(a.roots, b.roots, same)
}

// String names the CA without its key.
func (a *Authority) String() string {
	if a == nil || a.cert == nil {
		return "certs.Authority(none)"
	}
	return fmt.Sprintf("certs.Authority(%q sha256:%s until %s)", a.cert.Subject.String(), a.Fingerprint()[:16], stamp(a.notAfter))
}

// GoString is String, for %#v.
func (a *Authority) GoString() string { return a.String() }

// Format writes String whatever the verb: %x or %d would otherwise walk the fields.
func (a *Authority) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// LogValue is what slog records of an Authority.
func (a *Authority) LogValue() slog.Value {
	if a == nil || a.cert == nil {
		return slog.StringValue(a.String())
	}
	return slog.GroupValue(
		slog.String("subject", a.cert.Subject.String()),
		slog.String("sha256", a.Fingerprint()),
		slog.Time("not_after", a.notAfter))
}

// MarshalJSON writes what LogValue shows.
func (a *Authority) MarshalJSON() ([]byte, error) {
	if a == nil || a.cert == nil {
		return []byte("null"), nil
	}
	return json.Marshal(struct {
		Subject  string    `json:"subject"`
		SHA256   string    `json:"sha256"`
		NotAfter time.Time `json:"not_after"`
	}{a.cert.Subject.String(), a.Fingerprint(), a.notAfter})
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func containsCert(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
