package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// Files of the run's directory, as the proxies read them.
const (
	rootFile   = "origin-root.pem"
	caDir      = "ca"             // tls.crt, tls.key and ca.crt of the engine's authority
	ecPairFile = "ca-pair-ec.pem" // the same for goproxy, which makes a key of its authority's kind for each host
	caPairFile = "ca-pair.pem"    // the other proxies' authority
	bootFile   = "boot.pem"       // what HAProxy shows before it has generated a certificate
)

// harness lets this program use the certificates of package enginetest, which
// wants a test: what would fail a test ends the run.
type harness struct{ testing.TB }

func (harness) Helper() {}
func (harness) Fatalf(format string, args ...any) {
	panic(fmt.Errorf(format, args...))
}

// keys are the certificates of a run.
type keys struct {
	good tls.Certificate
	bad  map[string]*tls.Config // :: "T1 expired" → an upstream that must not be trusted
}

// makeKeys writes the files of the run.
func makeKeys(dir string) (k keys, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("making certificates: %v", p)
		}
	}()
	root := enginetest.NewRoot(harness{}, "attacks origin root")
	var names []string
	for _, c := range append(classes(), denied, "other.api") {
		names = append(names, "*."+string(c)+".test")
	}
	// An apex and look-alikes, and what hangs below a case's name: an upstream
	// that a client reaches by a wrong name must have a good certificate for it.
	names = append(names, "api.test", "evilapi.test", "kubernetes.default.svc", "localhost", outsideAddr, insideAddr)
	k.good = root.Certificate(harness{}, names...)
	k.bad = map[string]*tls.Config{}
	for _, b := range root.BadTLS(harness{}, "*.api.test") {
		k.bad[b.Row+" "+b.Name] = b.TLS
	}
	if err := os.WriteFile(filepath.Join(dir, rootFile), root.PEM, 0o644); err != nil {
		return k, err
	}
	return k, writeAuthorities(dir)
}

// newAuthority makes an intercepting authority's certificate and key as PEM, and
// the certificate of a server that it signed with the same key.
func newAuthority(key crypto.Signer) (pair, boot []byte, err error) {
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "attacks authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "boot.invalid"}, DNSNames: []string{"boot.invalid"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	served, err := x509.CreateCertificate(rand.Reader, leaf, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	private := block("PRIVATE KEY", pkcs8)
	return append(block("CERTIFICATE", der), private...), append(block("CERTIFICATE", served), private...), nil
}

// writeAuthorities writes the authorities that intercept, in every form that a
// proxy wants one in: with an ECDSA key where the proxy can use it, since it
// mints for every row, and with an RSA key for gomitmproxy, which can sign with
// no other, and for what is not ours to change. The files can be read by all,
// since Squid gives up root.
func writeAuthorities(dir string) error {
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	ec, _, err := newAuthority(ecKey)
	if err != nil {
		return err
	}
	pair, boot, err := newAuthority(rsaKey)
	if err != nil {
		return err
	}
	first, private := pem.Decode(ec)
	cert := pem.EncodeToMemory(first)
	if err := os.MkdirAll(filepath.Join(dir, caDir), 0o755); err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		filepath.Join(caDir, "tls.crt"): cert, filepath.Join(caDir, "tls.key"): private, filepath.Join(caDir, "ca.crt"): cert,
		ecPairFile: ec, caPairFile: pair, bootFile: boot,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
