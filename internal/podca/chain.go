package podca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/link"
)

const (
	// lifeSlack is how much longer than Life a certificate may be valid: issuers
	// date back for clocks that are behind.
	lifeSlack = time.Hour

	// maxSkew is how far the issuer's clock may be ahead of ours.
	maxSkew = time.Minute

	// maxChain bounds the certificates of an answer.
	maxChain = 8
)

// oidNameConstraints is RFC 5280, 4.2.1.10.
func oidNameConstraints() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 30} }

// checkChain returns the chain of an answer, the intermediate first and the
// root last, if it is what was asked for: a CA, of the request's key and the
// template's subject and constraints, for a day, below one of roots. An issuer
// that leaves a constraint out would otherwise make a CA for every name.
func checkChain(certPEM, caPEM []byte, csr *x509.CertificateRequest, t link.Template, roots []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	certs, err := parseChain(certPEM)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("the issuer returned no certificate")
	}
	above, err := parseChain(caPEM)
	if err != nil {
		return nil, err
	}
	ca := certs[0]
	if ahead := ca.NotBefore.Sub(now); ahead > 0 && ahead <= maxSkew {
		now = ca.NotBefore
	}
	if err := checkIntermediate(ca, csr, t, now); err != nil {
		return nil, err
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	for _, c := range append(certs[1:], above...) {
		between.AddCert(c)
	}
	found, err := ca.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return nil, fmt.Errorf("the certificate does not lead to the namespace's root: %w", err)
	}
	return found[0], nil
}

func checkIntermediate(ca *x509.Certificate, csr *x509.CertificateRequest, t link.Template, now time.Time) error {
	key, err := x509.MarshalPKIXPublicKey(ca.PublicKey)
	if err != nil {
		return fmt.Errorf("the certificate's key cannot be read: %w", err)
	}
	switch {
	case !ca.BasicConstraintsValid || !ca.IsCA:
		return errors.New("the certificate is not a CA; the issuer must honour isCA")
	case ca.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the certificate may not sign: its key usage lacks certSign")
	case !bytes.Equal(key, csr.RawSubjectPublicKeyInfo):
		return errors.New("the certificate is for another key than the request's")
	case !bytes.Equal(ca.RawSubject, t.RawSubject):
		return fmt.Errorf("the certificate's subject is %q, which is not the request's", ca.Subject)
	case now.Before(ca.NotBefore) || !now.Before(ca.NotAfter):
		return fmt.Errorf("the certificate is valid from %s to %s, and it is %s", ca.NotBefore, ca.NotAfter, now)
	case ca.NotAfter.Sub(now) > Life+lifeSlack:
		return fmt.Errorf("the certificate is valid until %s; %s was asked for", ca.NotAfter, Life)
	}
	found := 0
	for _, ext := range ca.Extensions {
		if !ext.Id.Equal(oidNameConstraints()) {
			continue
		}
		found++
		switch {
		case !ext.Critical:
			return errors.New("the certificate's name constraints are not critical, so that clients may ignore them")
		case !bytes.Equal(ext.Value, t.NameConstraints):
			return errors.New("the certificate's name constraints are not those of the pod's policy")
		}
	}
	if t.Unconstrained != (found == 0) || found > 1 {
		return fmt.Errorf("the certificate has name constraints %d times; the issuer must copy those of the request", found)
	}
	return nil
}

func parseChain(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the answer cannot be read: %w", len(out)+1, err)
		}
		if out = append(out, cert); len(out) > maxChain {
			return nil, fmt.Errorf("the answer has more than %d certificates", maxChain)
		}
	}
}

// lifeOf is how long the first of chain can be used: until it or one above it ends.
func lifeOf(chain []*x509.Certificate) time.Duration {
	from := chain[0].NotBefore
	life := chain[0].NotAfter.Sub(from)
	for _, c := range chain[1:] {
		life = min(life, c.NotAfter.Sub(from))
	}
	return life
}

// renewAfter is when two thirds of a chain's life are over.
func renewAfter(chain []*x509.Certificate) time.Time {
	return chain[0].NotBefore.Add(lifeOf(chain) / 3 * 2)
}
