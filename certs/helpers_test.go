package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// noon is when the tests take place.
var noon = time.Date(2026, 5, 15, 12, 0, 0, 0, time.UTC)

// testKey makes a key by name; RSA keys are made once, they are slow.
func testKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "P-224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA-2048":
		key, err = rsaKey()
	case "RSA-1024":
		return smallRSA{}
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("no key kind %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var rsaKey = sync.OnceValues(func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// smallRSA is a key that the standard library refuses to make.
type smallRSA struct{}

func (smallRSA) Public() crypto.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
}
func (smallRSA) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("not asked")
}

// caOf is a template of a CA that is good at noon.
func caOf(name string, edit ...func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.AddDate(1, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLen: -1,
	}
	for _, e := range edit {
		e(c)
	}
	return c
}

// sign issues tmpl; parent nil: self-signed.
func sign(t testing.TB, tmpl *x509.Certificate, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent, parentKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// authority is a self-signed CA with a key of that kind.
func authority(t testing.TB, kind string, edit ...func(*x509.Certificate)) *Authority {
	t.Helper()
	key := testKey(t, kind)
	cert := sign(t, caOf("test "+kind, edit...), key, nil, nil)
	a, err := New([]*x509.Certificate{cert}, key, nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func keyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func certsPEM(list ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range list {
		out = append(out, encodeCert(c.Raw)...)
	}
	return out
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fails says that err is there and speaks of what.
func fails(t testing.TB, err error, what string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one about %q", what)
	}
	if !strings.Contains(err.Error(), what) {
		t.Fatalf("error %q does not speak of %q", err, what)
	}
}

func leafKey(t testing.TB) *LeafKey {
	t.Helper()
	k, err := NewLeafKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// handshake is a real TLS handshake for host between a server with cert and a client that trusts roots, over TCP: on a
// net.Pipe a client that refuses and a server that still writes would wait for each other.
func handshake(t testing.TB, host string, cert *tls.Certificate, roots []*x509.Certificate, version uint16) error {
	t.Helper()
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	at := func() time.Time { return noon }
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		s, err := ln.Accept()
		if err == nil {
			err = tls.Server(s, &tls.Config{Certificates: []tls.Certificate{*cert}, Time: at, MaxVersion: version}).HandshakeContext(t.Context())
			defer s.Close()
		}
		done <- err
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = tls.Client(c, &tls.Config{RootCAs: pool, ServerName: host, Time: at, MaxVersion: version}).HandshakeContext(t.Context())
	if server := <-done; err == nil {
		return server
	}
	return err
}
