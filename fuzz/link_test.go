package fuzz

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// FuzzSigningRequest has an engine that was taken over ask aegrail-control for a
// certificate authority, with a signature that is right whatever it signs. The
// property: one request is taken for a key, and it is the template's.
func FuzzSigningRequest(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := templateOf(f, "api.example.com", "10.0.0.0/8")
	signed := func(t link.Template) []byte {
		der, err := link.NewRequest(t, key)
		if err != nil {
			f.Fatal(err)
		}
		request, err := x509.ParseCertificateRequest(der)
		if err != nil {
			f.Fatal(err)
		}
		return request.RawTBSCertificateRequest
	}
	own := signed(template)
	f.Add(own)
	f.Add(signed(templateOf(f, "api.example.com", "evil.example")))
	f.Add(signed(link.Template{RawSubject: template.RawSubject, Unconstrained: true}))
	f.Add(append(bytes.Clone(own), 0))
	f.Add(bytes.Replace(own, []byte{1, 1, 0xff}, []byte{1, 1, 1}, 1)) // another TRUE
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, info []byte) {
		digest := sha256.Sum256(info)
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		der, err := asn1.Marshal(struct {
			Info      asn1.RawValue
			Algorithm pkix.AlgorithmIdentifier
			Signature asn1.BitString
		}{
			asn1.RawValue{FullBytes: info}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
			asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
		})
		if err != nil {
			return
		}
		if err := link.CheckRequest(der, template); err == nil && !bytes.Equal(info, own) {
			t.Fatalf("taken: %x", info)
		} else if err != nil && bytes.Equal(info, own) {
			t.Fatalf("the template's own: %v", err)
		}
	})
}

func templateOf(f *testing.F, permit ...string) link.Template {
	f.Helper()
	subject, err := asn1.Marshal(pkix.Name{CommonName: "pod bot-1"}.ToRDNSequence())
	if err != nil {
		f.Fatal(err)
	}
	constraints, err := certs.NameConstraints(permit)
	if err != nil {
		f.Fatal(err)
	}
	return link.Template{RawSubject: subject, NameConstraints: constraints}
}
