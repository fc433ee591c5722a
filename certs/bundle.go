package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// maxBundle bounds a system's bundle file; Mozilla's list is about 220 KiB.
const maxBundle = 16 << 20

// SystemBundlePaths is where systems keep their roots as one PEM file, in the order in which SystemBundle looks.
func SystemBundlePaths() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Gentoo, Arch, distroless
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later, Fedora
		"/etc/pki/tls/certs/ca-bundle.crt",                  // RHEL 6, Amazon Linux
		"/etc/ssl/ca-bundle.pem",                            // openSUSE, SLES
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/ssl/cert.pem",                                 // Alpine, macOS, OpenBSD, FreeBSD 14
		"/usr/local/share/certs/ca-root-nss.crt",            // FreeBSD, DragonFly
		"/usr/local/etc/ssl/cert.pem",                       // FreeBSD
		"/etc/openssl/certs/ca-certificates.crt",            // NetBSD
		"/opt/homebrew/etc/ca-certificates/cert.pem",        // Homebrew on Apple silicon
		"/usr/local/etc/ca-certificates/cert.pem",           // Homebrew on Intel
	}
}

// SystemBundle returns the first of paths (nil: SystemBundlePaths) that can be read and holds a certificate. A system
// without one (an empty container image, Windows) is an error that the caller may bear: only hosts with passthrough need those
// roots, for everything else the engine's CA is enough.
func SystemBundle(paths []string) (path string, pemText []byte, err error) {
	if paths == nil {
		paths = SystemBundlePaths()
	}
	for _, p := range paths {
		data, err := readFile(p, maxBundle)
		if err == nil && len(Certificates(data)) > 0 {
			return p, data, nil
		}
	}
	return "", nil, errors.New("no bundle of system roots found; install the ca-certificates package, or pass a file of roots")
}

// Trust is a list of certificates that a client is to trust: no doubles, in a stable order.
type Trust struct {
	certs []*x509.Certificate
}

// Bundle joins the system's roots with extra PEM texts: the engine's RootsPEM, the files that the user's variables named.
// The system's text may be nil, and certificates in it that crypto/x509 cannot parse are left out; an extra text must hold at
// least one certificate and no damaged one. The order is the system's, then each extra's; of doubles the first stays.
func Bundle(system []byte, extra ...[]byte) (*Trust, error) {
	t := &Trust{}
	seen := make(map[[sha256.Size]byte]bool)
	add := func(list []*x509.Certificate) {
		for _, c := range list {
			if sum := sha256.Sum256(c.Raw); !seen[sum] {
				seen[sum] = true
				t.certs = append(t.certs, c)
			}
		}
	}
	add(Certificates(system))
	for i, text := range extra {
		list, err := parseCerts(text)
		if err != nil {
			return nil, fmt.Errorf("building the trust bundle, extra part %d: %w", i+1, err)
		}
		add(list)
	}
	if len(t.certs) == 0 {
		return nil, errors.New("building the trust bundle: no certificate")
	}
	return t, nil
}

// Certificates are those of a PEM text, as a client reads a list of roots: what is no certificate, or none that crypto/x509
// parses, is left out.
func Certificates(text []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			out = append(out, c)
		}
	}
}

// Len is the number of certificates.
func (t *Trust) Len() int { return len(t.certs) }

// PEM is the bundle for everything but Java.
func (t *Trust) PEM() []byte {
	var out bytes.Buffer
	for _, c := range t.certs {
		out.Write(encodeCert(c.Raw))
	}
	return out.Bytes()
}

// PKCS12 is the bundle as a Java trust store: each certificate carries the attribute that makes it a trusted entry, and an
// alias of its own (Java keeps one entry an alias, and many roots share a subject with their successor). The same list and
// password give the same bytes, so that a ConfigMap or an image layer does not change without need: salts and IV are drawn
// from a hash of the content. That is sound because nothing in the store is secret; for the same reason it uses 3DES and
// SHA-1, which every Java from 8 on can read, as the stronger kinds cannot be before 8u301 and 11.0.12.
func (t *Trust) PKCS12(password string) ([]byte, error) {
	seed := sha256.New()
	entries := make([]pkcs12.TrustStoreEntry, len(t.certs))
	for i, c := range t.certs {
		sum := sha256.Sum256(c.Raw)
		seed.Write(sum[:])
		entries[i] = pkcs12.TrustStoreEntry{Cert: c, FriendlyName: aliasOf(c, sum)}
	}
	out, err := pkcs12.LegacyDES.WithRand(&hashStream{seed: seed.Sum([]byte(password))}).EncodeTrustStoreEntries(entries, password)
	if err != nil {
		return nil, fmt.Errorf("building the PKCS #12 trust store: %w", err)
	}
	return out, nil
}

// aliasOf is unique and in the Basic Multilingual Plane's ASCII part: PKCS #12 wants UCS-2.
func aliasOf(c *x509.Certificate, sum [sha256.Size]byte) string {
	name := []byte(c.Subject.CommonName)
	for i, b := range name {
		if b < ' ' || b > '~' {
			name[i] = '_'
		}
	}
	return string(name) + " [" + hex.EncodeToString(sum[:8]) + "]"
}

// hashStream is SHA-256 of a seed and a counter, without end. Not for anything secret.
type hashStream struct {
	seed  []byte
	count uint64
	rest  []byte
}

func (h *hashStream) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(h.rest) == 0 {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(bytes.Clone(h.seed), h.count))
			h.count++
			h.rest = sum[:]
		}
		k := copy(p[n:], h.rest)
		n, h.rest = n+k, h.rest[k:]
	}
	return len(p), nil
}
