package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// NewEphemeral makes a CA for one process: a P-256 key that exists in memory alone, valid for EphemeralLife.
func NewEphemeral(now time.Time) (*Authority, error) {
	made, err := create(nil, EphemeralLife, now)
	if err != nil {
		return nil, fmt.Errorf("making an ephemeral CA: %w", err)
	}
	a, err := New(made.chain, made.key, made.roots, now)
	if err != nil {
		return nil, fmt.Errorf("making an ephemeral CA: %w", err)
	}
	return a, nil
}

// Init makes a CA and writes it to dir, which is created if need be: ca.crt (the root, for clients to trust), tls.crt (the
// signing certificate) and tls.key (mode 0600). It refuses to overwrite: if any of the three exists, nothing is written.
//
// Without permit the root itself signs. With permit (hosts, `*.x` for everything below x, CIDR ranges), what signs is an
// intermediate that is constrained to those names, because a constraint in a self-signed root binds only some clients (JDK 17
// ignores it). The root's key signs that one certificate and is then dropped, in memory: a thief of dir gets the constrained
// key, and a root key lying beside it would undo the constraint. Hence the names of such a CA cannot be changed; make a new
// one in another directory and give its ca.crt to the clients.
func Init(dir string, permit []string, now time.Time) error {
	made, err := create(permit, InitLife, now)
	if err != nil {
		return fmt.Errorf("making a CA: %w", err)
	}
	// What is written must load: a CA that cannot serve is found here and not at the first handshake.
	if _, err := New(made.chain, made.key, made.roots, now); err != nil {
		return fmt.Errorf("making a CA: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(made.key)
	if err != nil {
		return fmt.Errorf("making a CA: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a CA: %w", err)
	}
	return writeAll(dir, []newFile{
		{KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600},
		{CertFile, encodeCert(made.chain[0].Raw), 0o644},
		{RootFile, encodeCert(made.roots[0].Raw), 0o644},
	})
}

// newFile is a file that must not exist yet.
type newFile struct {
	name string
	data []byte
	mode fs.FileMode
}

// writeAll creates all files or, if one exists or fails, leaves none of those it created.
func writeAll(dir string, files []newFile) (err error) {
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			return fmt.Errorf("%s exists and is not overwritten; give another directory, or move the old CA away", filepath.Join(dir, f.name))
		}
	}
	var created []string
	defer func() {
		if err != nil {
			for _, name := range created {
				err = errors.Join(err, os.Remove(name))
			}
		}
	}()
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if err != nil {
			return fmt.Errorf("writing the CA: %w", err)
		}
		created = append(created, name)
		_, err = out.Write(f.data)
		if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
			return fmt.Errorf("writing the CA: %w", err)
		}
	}
	return nil
}

// createdCA is a CA before it is an Authority.
type createdCA struct {
	chain []*x509.Certificate // the signer alone
	key   *ecdsa.PrivateKey   // the signer's
	roots []*x509.Certificate
}

func create(permit []string, life time.Duration, now time.Time) (createdCA, error) {
	root := caTemplate("root", life, now)
	if len(permit) == 0 {
		root.MaxPathLenZero = true // it signs leaves and no CA
		return createRoot(root)
	}
	signer := caTemplate("CA", life, now)
	signer.MaxPathLenZero = true
	signer.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} // binds what it signs, in Go, OpenSSL and Java
	if err := constrain(signer, permit); err != nil {
		return createdCA{}, err
	}
	root.MaxPathLen = 1
	above, err := createRoot(root)
	if err != nil {
		return createdCA{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return createdCA{}, err
	}
	cert, err := issue(signer, above.chain[0], key, above.key)
	if err != nil {
		return createdCA{}, err
	}
	return createdCA{chain: []*x509.Certificate{cert}, key: key, roots: above.roots}, nil
}

func createRoot(tmpl *x509.Certificate) (createdCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return createdCA{}, err
	}
	cert, err := issue(tmpl, tmpl, key, key)
	if err != nil {
		return createdCA{}, err
	}
	list := []*x509.Certificate{cert}
	return createdCA{chain: list, key: key, roots: list}, nil
}

func caTemplate(kind string, life time.Duration, now time.Time) *x509.Certificate {
	notBefore := now.UTC().Truncate(time.Second).Add(-Backdate)
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"aegrail-engine"}, CommonName: "aegrail-engine " + kind},
		NotBefore:             notBefore,
		NotAfter:              notBefore.Add(life),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// issue signs tmpl for key. The subject gets part of the key's identifier, so that the roots of two CAs in one bundle
// are two entries: OpenSSL and Java find an issuer by its name.
func issue(tmpl, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	tmpl.SerialNumber = new(big.Int).SetBytes(newSerial())
	tmpl.SubjectKeyId = sum[:20] // RFC 7093, 2: 160 bits of SHA-256
	tmpl.Subject.CommonName += " " + hex.EncodeToString(sum[:4])
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
