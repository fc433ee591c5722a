package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Files of the run's directory, as the proxies read them.
const (
	rootFile   = "origin-root.pem"
	originFile = "origin.pem" // certificate and key
	caDir      = "ca"         // tls.crt, tls.key and ca.crt of the authority that intercepts
	caPairFile = "ca-pair.pem"
	bootFile   = "boot.pem" // what HAProxy shows before it has generated a certificate
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p pair) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func (p pair) keyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// sign makes a certificate for a new P-256 key; a zero signer signs itself.
func sign(tmpl *x509.Certificate, signer pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return pair{}, err
	}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if signer.cert == nil {
		signer = pair{tmpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer.cert, key.Public(), signer.key)
	if err != nil {
		return pair{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return pair{cert, key}, err
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
}

func server(names ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// makePKI writes the files of the run and returns what clients trust: the
// origin's root for direct connections, the intercepting authority for the rest.
func makePKI(dir string) (*x509.CertPool, error) {
	root, err := sign(authority("bench origin root"), pair{})
	if err != nil {
		return nil, err
	}
	origin, err := sign(server(host, closingHost, pinnedHost, "*."+seenDomain), root)
	if err != nil {
		return nil, err
	}
	ca, err := sign(authority("bench authority"), pair{})
	if err != nil {
		return nil, err
	}
	boot, err := sign(server("boot.invalid"), ca)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, caDir), 0o700); err != nil {
		return nil, err
	}
	keys := map[*ecdsa.PrivateKey][]byte{}
	for _, p := range []pair{origin, ca, boot} {
		if keys[p.key], err = p.keyPEM(); err != nil {
			return nil, err
		}
	}
	for name, data := range map[string][]byte{
		rootFile:                        root.certPEM(),
		originFile:                      append(origin.certPEM(), keys[origin.key]...),
		filepath.Join(caDir, "tls.crt"): ca.certPEM(),
		filepath.Join(caDir, "tls.key"): keys[ca.key],
		filepath.Join(caDir, "ca.crt"):  ca.certPEM(),
		caPairFile:                      append(ca.certPEM(), keys[ca.key]...),
		hostsFile:                       hostsText(),
		bootFile:                        append(boot.certPEM(), keys[boot.key]...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	pool.AddCert(ca.cert)
	return pool, nil
}

// minter is the authority of the peers that are Go programs. Like the engine
// it keeps one leaf key and caches leaves by name.
type minter struct {
	ca  tls.Certificate
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

func newMinter(dir string) (*minter, error) {
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, caDir, "tls.crt"), filepath.Join(dir, caDir, "tls.key"))
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &minter{ca: ca, key: key, leaves: map[string]*tls.Certificate{}}, err
}

func (m *minter) leaf(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := hello.ServerName
	if name == "" {
		return nil, errors.New("no server name")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.leaves[name]; c != nil {
		return c, nil
	}
	tmpl := server(name)
	tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, m.ca.Leaf, m.key.Public(), m.ca.PrivateKey)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: m.key}
	m.leaves[name] = c
	return c, nil
}

// serverTLS and upstreamTLS are both sides of the peers that are Go programs.
func serverTLS(dir string) (*tls.Config, error) {
	m, err := newMinter(dir)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
		NextProtos: []string{"h2", "http/1.1"}, GetCertificate: m.leaf, DynamicRecordSizingDisabled: true,
	}, nil
}

func upstreamTLS(dir string) (*tls.Config, error) {
	data, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", rootFile)
	}
	return &tls.Config{
		RootCAs: roots, CurvePreferences: []tls.CurveID{tls.X25519},
		ClientSessionCache: tls.NewLRUClientSessionCache(1024), DynamicRecordSizingDisabled: true,
	}, nil
}

// freePort asks the kernel for a port that nothing listens on. Something else
// could take it before the proxy does; the proxy then fails to start and says so.
func freePort() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
