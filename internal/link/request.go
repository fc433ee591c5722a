package link

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// maxRequest bounds a certificate signing request: the names of two thousand
// hosts fit in 64 KiB.
const maxRequest = 64 << 10

// oidNameConstraints is RFC 5280, 4.2.1.10.
func oidNameConstraints() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 30} }

// NewRequest makes the one request for key that CheckRequest takes for t.
func NewRequest(t Template, key crypto.Signer) ([]byte, error) {
	if t.None() {
		return nil, fmt.Errorf("making a certificate signing request: the template allows no host, so there is nothing to ask for")
	}
	request := &x509.CertificateRequest{RawSubject: t.RawSubject}
	if !t.Unconstrained {
		request.ExtraExtensions = []pkix.Extension{{Id: oidNameConstraints(), Critical: true, Value: t.NameConstraints}}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate signing request: %w", err)
	}
	return der, nil
}

// CheckRequest says why der is not exactly what t asks for. The issuer copies
// subject and extensions of what it is given, so anything more than the
// template would be the engine's own choice of them: what is signed of the
// request must be, byte for byte, what NewRequest makes for that key.
// Errors are Refusals of kind Invalid, or Denied where t has no host.
func CheckRequest(der []byte, t Template) error {
	switch {
	case t.None():
		return Refuse(Denied, "no_allowed_host", "the policy of this pod allows no host, so it gets no certificate authority; allow one")
	case t.Unconstrained && len(t.NameConstraints) > 0:
		return Refuse(Unavailable, "bad_template", "the template is unconstrained and has constraints; this is a defect of aegrail-control")
	case len(der) > maxRequest:
		return Refuse(Invalid, "request_too_long", "the certificate signing request has %d bytes, at most %d are read", len(der), maxRequest)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return notTheTemplate("it does not parse: %v", err)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || key.Curve != elliptic.P256() && key.Curve != elliptic.P384():
		return notTheTemplate("its key is %s; want ECDSA on P-256 or P-384", request.PublicKeyAlgorithm)
	case request.CheckSignature() != nil:
		return notTheTemplate("its signature is not by its key")
	case !bytes.Equal(request.RawSubject, t.RawSubject):
		return notTheTemplate("its subject is %q", request.Subject)
	}
	want, err := requestInfoFor(t, key)
	if err != nil {
		return Refuse(Unavailable, "bad_template", "the template cannot be written down; this is a defect of aegrail-control")
	}
	if !bytes.Equal(request.RawTBSCertificateRequest, want) {
		return notTheTemplate("beside its subject and key there is more, or less, or something else than the template's name constraints")
	}
	return nil
}

// requestInfo is CertificationRequestInfo (RFC 2986, 4.1).
type requestInfo struct {
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes []extensionRequest `asn1:"tag:0,set"`
}

// extensionRequest is the attribute of RFC 2985, 5.4.2.
type extensionRequest struct {
	ID    asn1.ObjectIdentifier
	Value [][]pkix.Extension `asn1:"set"`
}

// requestInfoFor is what of a request is signed: all of it but the signature.
func requestInfoFor(t Template, key *ecdsa.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	info := requestInfo{Subject: asn1.RawValue{FullBytes: t.RawSubject}, PublicKey: asn1.RawValue{FullBytes: spki}}
	if !t.Unconstrained {
		info.Attributes = []extensionRequest{{
			ID:    asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14},
			Value: [][]pkix.Extension{{{Id: oidNameConstraints(), Critical: true, Value: t.NameConstraints}}},
		}}
	}
	return asn1.Marshal(info)
}

func notTheTemplate(format string, args ...any) *Refusal {
	return Refuse(Invalid, "not_the_template", "the certificate signing request is not the template of the pod's policy: %s", fmt.Sprintf(format, args...))
}
