package enginetest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
	"time"
)

// BadTLS is an origin that must not be trusted, by its row in the catalogue
// of attacks.
type BadTLS struct {
	Row  string // "T1"
	Name string // "expired"
	TLS  *tls.Config
}

const (
	manySANs  = 10_000 // row T11: close to the 256 KiB that crypto/tls takes as a certificate message
	longChain = 100    // row T12: intermediates between root and leaf
)

// BadTLS returns the rows T1 to T14 for host: origins whose certificates r
// signed where the row allows, so that the row's fault is the only one. Row
// T15, a connection cut without close_notify, is OriginConn.Cut.
func (r *Root) BadTLS(tb testing.TB, host string) []BadTLS {
	tb.Helper()
	now := time.Now()
	names := []string{host}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		tb.Fatalf("enginetest: making an RSA-1024 key: %v", err)
	}
	row := func(row, name string, c tls.Certificate) BadTLS {
		return BadTLS{Row: row, Name: name, TLS: serverConfig(c)}
	}
	rows := []BadTLS{
		row("T1", "expired", r.Issue(tb, Leaf{Names: names, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-time.Minute)})),
		row("T2", "not yet valid", r.Issue(tb, Leaf{Names: names, NotBefore: now.Add(time.Hour)})),
		row("T3", "wrong name", r.Issue(tb, Leaf{Names: []string{"other." + host}})),
		row("T4", "self-signed", r.SelfSigned(tb, Leaf{Names: names})),
		row("T5", "unknown root", NewRoot(tb, "a root nobody trusts").Issue(tb, Leaf{Names: names})),
		row("T6", "missing intermediate", r.Intermediate(tb, "absent intermediate").Issue(tb, Leaf{Names: names, Bare: true})),
		row("T7", "common name only", r.Issue(tb, Leaf{Subject: host})),
		row("T8", "SHA-1 signature", sha1Signed(tb, r, names)),
		row("T9", "RSA-1024", r.Issue(tb, Leaf{Names: names, Key: weak})),
		row("T10", "clientAuth only", r.Issue(tb, Leaf{Names: names, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})),
		row("T11", "10 000 names", r.Issue(tb, Leaf{Names: names, Change: addManyNames})),
		row("T12", "a chain of 100", r.Chain(tb, longChain).Issue(tb, Leaf{Names: names})),
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		old := row("T13", tls.VersionName(version)+" only", r.Certificate(tb, host))
		old.TLS.MinVersion, old.TLS.MaxVersion = version, version
		rows = append(rows, old)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		// In TLS 1.3 the client has finished its handshake before it learns
		// that its missing certificate is not forgiven.
		asks := row("T14", "asks for a client certificate, "+tls.VersionName(version), r.Certificate(tb, host))
		asks.TLS.ClientAuth = tls.RequireAnyClientCert
		asks.TLS.MinVersion, asks.TLS.MaxVersion = version, version
		rows = append(rows, asks)
	}
	return rows
}

func serverConfig(c tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
}

// addManyNames uses names as short as they come: the certificate has to pass
// crypto/tls's own limit to be anybody else's problem.
func addManyNames(c *x509.Certificate) {
	for i := len(c.DNSNames); i < manySANs; i++ {
		c.DNSNames = append(c.DNSNames, fmt.Sprintf("n%d.test", i))
	}
}

// sha1Signed returns a certificate whose SHA-1 signature is of an RSA
// intermediate that r vouches for.
func sha1Signed(tb testing.TB, r *Root, names []string) tls.Certificate {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatalf("enginetest: making an RSA-2048 key: %v", err)
	}
	old := newAuthority(tb, "an authority that signs with SHA-1", key, r, nil)
	return old.Issue(tb, Leaf{Names: names, Algorithm: x509.SHA1WithRSA})
}
