package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxCAFile bounds a certificate or key file of a CA; a Secret as a whole holds at most 1 MiB.
const maxCAFile = 1 << 20

// The names inside a CA directory: those of a kubernetes.io/tls Secret as cert-manager fills it.
const (
	CertFile = "tls.crt" // the signing certificate, then intermediates
	KeyFile  = "tls.key" // its private key
	RootFile = "ca.crt"  // what clients are to trust
)

// Load makes an Authority of PEM: certPEM begins with the signing certificate, intermediates and a root may follow; keyPEM
// holds its private key as PKCS #8, SEC 1 ("EC PRIVATE KEY") or PKCS #1 ("RSA PRIVATE KEY").
func Load(certPEM, keyPEM []byte, now time.Time) (*Authority, error) {
	return LoadWithRoots(certPEM, keyPEM, nil, now)
}

// LoadWithRoots is Load with the certificates that clients are to trust; during a change of root there are several. nil: those
// that certPEM holds.
func LoadWithRoots(certPEM, keyPEM, rootsPEM []byte, now time.Time) (*Authority, error) {
	chain, err := parseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("loading CA certificate: %w", err)
	}
	var roots []*x509.Certificate
	if rootsPEM != nil {
		if roots, err = parseCerts(rootsPEM); err != nil {
			return nil, fmt.Errorf("loading CA root: %w", err)
		}
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("loading CA key: %w", err)
	}
	a, err := New(chain, key, roots, now)
	if err != nil {
		return nil, fmt.Errorf("loading CA: %w", err)
	}
	return a, nil
}

// LoadFiles is LoadWithRoots from files. root may be "": the roots are then those in cert.
func LoadFiles(cert, key, root string, now time.Time) (*Authority, error) {
	certPEM, err := readFile(cert, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("loading CA certificate: %w", err)
	}
	var rootsPEM []byte
	if root != "" {
		if rootsPEM, err = readFile(root, maxCAFile); err != nil {
			return nil, fmt.Errorf("loading CA root: %w", err)
		}
	}
	keyPEM, err := readFile(key, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("loading CA key: %w", err)
	}
	defer clear(keyPEM)
	a, err := LoadWithRoots(certPEM, keyPEM, rootsPEM, now)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", cert, key, err)
	}
	if rootsPEM != nil {
		if err := a.leadsTo(rootsPEM, now); err != nil {
			return nil, fmt.Errorf("%s, %s: %w; take all files from the same CA", cert, root, err)
		}
	}
	return a, nil
}

// leadsTo refuses roots of another CA: who trusts them alone would reject every leaf. New does not see it where the signer is
// self-signed, as that is a root itself, whatever it came with. What is tried is what a client does with a leaf.
func (a *Authority) leadsTo(rootsPEM []byte, now time.Time) error {
	roots, path := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(rootsPEM)
	for _, c := range a.path {
		path.AddCert(c)
	}
	host, _ := a.permittedName() // New has minted a leaf for it
	key, err := NewLeafKey()
	if err != nil {
		return err
	}
	leaf, err := a.Mint(host, key, now)
	if err != nil {
		return err
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: path, CurrentTime: now}); err != nil {
		return fmt.Errorf("CA %q does not chain to what clients are to trust: %w", a.cert.Subject, err)
	}
	return nil
}

// LoadDir loads tls.crt, tls.key and, if it is there, ca.crt from dir. The kubelet replaces a mounted Secret by moving one
// symbolic link, ..data; the three files are read through one reading of it, so that they are of one generation.
func LoadDir(dir string, now time.Time) (*Authority, error) {
	if data, err := filepath.EvalSymlinks(filepath.Join(dir, "..data")); err == nil {
		dir = data
	}
	root := filepath.Join(dir, RootFile)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		root = ""
	}
	return LoadFiles(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile), root, now)
}

// readFile reads at most limit bytes; a longer file is an error, not a cut.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, nil
}

// parseCerts returns the certificates of a PEM text, at least one. Blocks of other types are passed over; a damaged block,
// which pem.Decode passes over in silence, is an error: half a chain would load and then fail at the clients.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	const begin = "-----BEGIN CERTIFICATE-----"
	want := bytes.Count(text, []byte(begin))
	if want == 0 {
		return nil, errors.New("no certificate in it (expected PEM with " + begin + ")")
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, cert)
	}
	if len(out) != want {
		return nil, fmt.Errorf("malformed PEM: %d of %d certificates can be read", len(out), want)
	}
	return out, nil
}

// parseKey returns the first private key of a PEM text. Errors never hold bytes of the text.
func parseKey(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no private key in it (expected PEM with PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY)")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // "EC PARAMETERS" in front of the key, say
		}
		defer clear(block.Bytes)
		return parseKeyBlock(block)
	}
}

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, errors.New("the private key is encrypted; decrypt it with: openssl pkey -in KEY -out tls.key")
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a %s is not taken; use PKCS #8: openssl pkey -in KEY -out tls.key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("malformed %s: %w", block.Type, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign; use ECDSA P-256 or P-384, RSA or Ed25519", key)
	}
	return signer, nil
}
