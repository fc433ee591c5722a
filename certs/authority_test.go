package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEveryKeyTypeSignsLeavesThatVerify(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "RSA-2048", "Ed25519"} {
		t.Run(kind, func(t *testing.T) {
			a := authority(t, kind)
			for _, host := range []string{"api.example.com", "192.0.2.7", "2001:db8::7"} {
				leaf, err := a.Mint(host, leafKey(t), noon)
				if err != nil {
					t.Fatal(err)
				}
				for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					if err := handshake(t, host, leaf, a.Roots(), version); err != nil {
						t.Errorf("%s, %s: %v", host, tls.VersionName(version), err)
					}
				}
				if err := handshake(t, "other.example.com", leaf, a.Roots(), 0); err == nil {
					t.Errorf("the leaf of %s serves other.example.com", host)
				}
			}
		})
	}
}

func TestChainIsSentWithoutTheRoot(t *testing.T) {
	rootKey, midKey, key := testKey(t, "P-384"), testKey(t, "RSA-2048"), testKey(t, "P-256")
	root := sign(t, caOf("root"), rootKey, nil, nil)
	mid := sign(t, caOf("mid"), midKey, root, rootKey)
	signer := sign(t, caOf("signer"), key, mid, midKey)
	for name, a := range map[string]func() (*Authority, error){
		"root in tls.crt": func() (*Authority, error) { return Load(certsPEM(signer, mid, root), keyPEM(t, key), noon) },
		"root apart": func() (*Authority, error) {
			return LoadWithRoots(certsPEM(signer, mid), keyPEM(t, key), certsPEM(root), noon)
		},
		"root twice": func() (*Authority, error) {
			return LoadWithRoots(certsPEM(signer, mid, root), keyPEM(t, key), certsPEM(root), noon)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := a()
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := a.Mint("api.example.com", leafKey(t), noon)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(leaf.Certificate); n != 3 || !bytes.Equal(leaf.Certificate[1], signer.Raw) || !bytes.Equal(leaf.Certificate[2], mid.Raw) {
				t.Errorf("%d certificates are sent; want leaf, signer, mid", n)
			}
			if err := handshake(t, "api.example.com", leaf, []*x509.Certificate{root}, 0); err != nil {
				t.Error(err)
			}
			if got := a.RootsPEM(); !bytes.Equal(got, certsPEM(root)) {
				t.Errorf("roots are\n%s", got)
			}
			if a.Certificate() != nil && !a.Certificate().Equal(signer) {
				t.Error("the signing certificate is another one")
			}
		})
	}
	t.Run("no root at all: the topmost is the anchor", func(t *testing.T) {
		a, err := Load(certsPEM(signer, mid), keyPEM(t, key), noon)
		if err != nil {
			t.Fatal(err)
		}
		if !a.Roots()[0].Equal(mid) {
			t.Error("the anchor is another one")
		}
	})
	t.Run("two roots during a change, one of them expired", func(t *testing.T) {
		old := sign(t, caOf("root", func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) }), rootKey, nil, nil)
		a, err := LoadWithRoots(certsPEM(signer, mid), keyPEM(t, key), certsPEM(old, root), noon)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Roots()) != 2 {
			t.Error("a root is missing")
		}
	})
}

func TestK03UnusableCAIsRefusedWithTheReason(t *testing.T) {
	key, other := testKey(t, "P-256"), testKey(t, "P-256")
	rootKey := testKey(t, "P-256")
	self := func(edit func(*x509.Certificate)) func() ([]*x509.Certificate, crypto.Signer) {
		return func() ([]*x509.Certificate, crypto.Signer) {
			return []*x509.Certificate{sign(t, caOf("ca", edit), key, nil, nil)}, key
		}
	}
	under := func(rootEdit, edit func(*x509.Certificate)) func() ([]*x509.Certificate, crypto.Signer) {
		return func() ([]*x509.Certificate, crypto.Signer) {
			root := sign(t, caOf("root", rootEdit), rootKey, nil, nil)
			return []*x509.Certificate{sign(t, caOf("ca", edit), key, root, rootKey), root}, key
		}
	}
	plain := func(*x509.Certificate) {}
	for name, row := range map[string]struct {
		chain func() ([]*x509.Certificate, crypto.Signer)
		about string
	}{
		"not a CA":      {self(func(c *x509.Certificate) { c.IsCA = false; c.MaxPathLen = 0 }), "not a CA"},
		"no certSign":   {self(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), "lacks certSign"},
		"expired":       {self(func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }), "expired at 2026-05-15T11:59:59Z"},
		"not yet valid": {self(func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Second) }), "not yet valid"},
		"key of another": {func() ([]*x509.Certificate, crypto.Signer) {
			return []*x509.Certificate{sign(t, caOf("ca"), key, nil, nil)}, other
		}, "key mismatch"},
		"root first": {func() ([]*x509.Certificate, crypto.Signer) {
			chain, key := under(plain, plain)()
			return []*x509.Certificate{chain[1], chain[0]}, key
		}, "must come first"},
		"root of another": {func() ([]*x509.Certificate, crypto.Signer) {
			chain, key := under(plain, plain)()
			return []*x509.Certificate{chain[0], sign(t, caOf("root"), other, nil, nil)}, key
		}, "does not chain to its root"},
		"root expired":          {under(func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }, plain), "does not chain to its root"},
		"client authentication": {under(plain, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "does not verify"},
		"path length used up":   {under(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, plain), "does not verify"},
		"constraints permit nothing": {under(plain, func(c *x509.Certificate) {
			if err := constrain(c, []string{"x.test"}); err != nil {
				t.Error(err)
			}
			c.ExcludedDNSDomains = []string{""}
		}), "sign for nobody"},
		"P-224":       {func() ([]*x509.Certificate, crypto.Signer) { return parsed(t, testKey(t, "P-224")) }, "use P-256"},
		"small RSA":   {func() ([]*x509.Certificate, crypto.Signer) { return parsed(t, smallRSA{}) }, "1024 bits"},
		"unknown key": {func() ([]*x509.Certificate, crypto.Signer) { return parsed(t, oddKey{}) }, "certs.oddKey"},
		"broken signer": {func() ([]*x509.Certificate, crypto.Signer) {
			return []*x509.Certificate{sign(t, caOf("ca"), key, nil, nil)}, &brokenKey{Signer: key}
		}, "out of order"},
		"signer that breaks later": {func() ([]*x509.Certificate, crypto.Signer) {
			return []*x509.Certificate{sign(t, caOf("ca"), key, nil, nil)}, &brokenKey{Signer: key, good: 1}
		}, "out of order"},
		"no certificate": {func() ([]*x509.Certificate, crypto.Signer) { return nil, key }, "no certificate"},
		"no key": {func() ([]*x509.Certificate, crypto.Signer) {
			chain, _ := parsed(t, key)
			return chain, nil
		}, "no private key"},
	} {
		t.Run(name, func(t *testing.T) {
			chain, key := row.chain()
			a, err := New(chain, key, nil, noon)
			fails(t, err, row.about)
			if a != nil {
				t.Error("an Authority came with the error")
			}
		})
	}
}

// oddKey is a signer whose public key is of no known type.
type oddKey struct{ smallRSA }

func (oddKey) Public() crypto.PublicKey { return oddKey{} }

// brokenKey signs good times and then fails.
type brokenKey struct {
	crypto.Signer
	good int
}

func (k *brokenKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.good--; k.good < 0 {
		return nil, fmt.Errorf("out of order")
	}
	return k.Signer.Sign(r, digest, opts)
}

// parsed is a CA certificate for whatever key: what is refused for its key needs no signature.
func parsed(_ *testing.T, key crypto.Signer) ([]*x509.Certificate, crypto.Signer) {
	c := caOf("ca")
	c.PublicKey = key.Public()
	return []*x509.Certificate{c}, key
}

func TestCAWithoutKeyUsageSigns(t *testing.T) {
	authority(t, "P-256", func(c *x509.Certificate) { c.KeyUsage = 0 })
}

func TestPrivateKeyForms(t *testing.T) {
	ec, rsaK := testKey(t, "P-256"), testKey(t, "RSA-2048")
	sec1, err := x509.MarshalECPrivateKey(ec.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	xDER, err := x509.MarshalPKCS8PrivateKey(x)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	params := block("EC PARAMETERS", []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})
	good := map[string][]byte{
		"PKCS #8":                       keyPEM(t, ec),
		"SEC 1 after its EC PARAMETERS": append(params, block("EC PRIVATE KEY", sec1)...),
		"PKCS #1":                       block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaK.(*rsa.PrivateKey))),
		"a certificate in front of it":  append(block("CERTIFICATE", []byte("x")), keyPEM(t, ec)...),
		"text in front of it":           append([]byte("Key of the test CA\n"), keyPEM(t, ec)...),
	}
	for name, text := range good {
		if _, err := parseKey(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	dek := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x")})
	for name, row := range map[string]struct {
		text  []byte
		about string
	}{
		"empty":             {nil, "no private key"},
		"a certificate":     {block("CERTIFICATE", []byte("x")), "no private key"},
		"encrypted PKCS #8": {block("ENCRYPTED PRIVATE KEY", []byte("x")), "openssl pkey"},
		"encrypted PKCS #1": {dek, "openssl pkey"},
		"OpenSSH":           {block("OPENSSH PRIVATE KEY", []byte("x")), "use PKCS #8"},
		"damaged":           {block("PRIVATE KEY", []byte("SECRETBYTES")), "malformed PRIVATE KEY"},
		"X25519":            {block("PRIVATE KEY", xDER), "cannot sign"},
	} {
		_, err := parseKey(row.text)
		fails(t, err, row.about)
		if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error holds key bytes: %v", name, err)
		}
	}
}

func TestCertificateText(t *testing.T) {
	ca := sign(t, caOf("ca"), testKey(t, "P-256"), nil, nil)
	one := certsPEM(ca)
	if got, err := parseCerts(append([]byte("# comment\n"), append(keyPEM(t, testKey(t, "P-256")), one...)...)); err != nil || len(got) != 1 {
		t.Errorf("a comment and a key in front: %d, %v", len(got), err)
	}
	_, err := parseCerts([]byte("hello"))
	fails(t, err, "no certificate in it")
	_, err = parseCerts(append(bytes.Clone(one), one[:len(one)/2]...))
	fails(t, err, "1 of 2 certificates")
	_, err = parseCerts(encodeCert([]byte("not DER")))
	fails(t, err, "certificate 1")
}

func TestK03Files(t *testing.T) {
	key := testKey(t, "P-256")
	ca := sign(t, caOf("ca"), key, nil, nil)
	good := func(t *testing.T) string {
		dir := t.TempDir()
		write(t, dir, CertFile, certsPEM(ca))
		write(t, dir, KeyFile, keyPEM(t, key))
		write(t, dir, RootFile, certsPEM(ca))
		return dir
	}
	for name, row := range map[string]struct {
		harm  func(t *testing.T, dir string)
		about string // "": loads
	}{
		"whole":           {func(*testing.T, string) {}, ""},
		"without ca.crt":  {func(t *testing.T, dir string) { remove(t, dir, RootFile) }, ""},
		"without tls.crt": {func(t *testing.T, dir string) { remove(t, dir, CertFile) }, "loading CA certificate: open"},
		"without tls.key": {func(t *testing.T, dir string) { remove(t, dir, KeyFile) }, "loading CA key: open"},
		"ca.crt empty":    {func(t *testing.T, dir string) { write(t, dir, RootFile, nil) }, "loading CA root: no certificate"},
		"ca.crt another's": {func(t *testing.T, dir string) {
			write(t, dir, RootFile, certsPEM(sign(t, caOf("another"), testKey(t, "P-256"), nil, nil)))
		}, "does not chain to what clients are to trust"},
		"ca.crt another's and its own": {func(t *testing.T, dir string) {
			write(t, dir, RootFile, certsPEM(sign(t, caOf("another"), testKey(t, "P-256"), nil, nil), ca))
		}, ""},
		"ca.crt of its key, made anew": {func(t *testing.T, dir string) { write(t, dir, RootFile, certsPEM(sign(t, caOf("ca"), key, nil, nil))) }, ""},
		"ca.crt directory":             {func(t *testing.T, dir string) { remove(t, dir, RootFile); mkdir(t, dir, RootFile) }, "loading CA root: read"},
		"tls.crt garbage":              {func(t *testing.T, dir string) { write(t, dir, CertFile, []byte("x")) }, "loading CA certificate: no certificate"},
		"tls.key garbage":              {func(t *testing.T, dir string) { write(t, dir, KeyFile, []byte("x")) }, "loading CA key: no private key"},
		"tls.key another's":            {func(t *testing.T, dir string) { write(t, dir, KeyFile, keyPEM(t, testKey(t, "P-256"))) }, "key mismatch"},
		"tls.crt endless":              {func(t *testing.T, dir string) { write(t, dir, CertFile, make([]byte, maxCAFile+1)) }, "longer than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := good(t)
			row.harm(t, dir)
			a, err := LoadDir(dir, noon)
			if row.about == "" {
				if err != nil || !a.Certificate().Equal(ca) {
					t.Errorf("%v, %v", a, err)
				}
				return
			}
			fails(t, err, row.about)
		})
	}
	t.Run("a mounted Secret", func(t *testing.T) {
		dir, mount := good(t), t.TempDir()
		if err := os.Symlink(dir, filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadDir(mount, noon); err != nil {
			t.Error(err)
		}
	})
	t.Run("named files without a root", func(t *testing.T) {
		dir := good(t)
		if _, err := LoadFiles(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile), "", noon); err != nil {
			t.Error(err)
		}
	})
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestK06KeyIsNeverShown prints the CA and the leaf key in every way a log line might, and looks for the private bytes in
// hex, decimal and base64.
func TestK06KeyIsNeverShown(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "RSA-2048", "Ed25519"} {
		key := testKey(t, kind)
		a, err := New([]*x509.Certificate{sign(t, caOf("ca"), key, nil, nil)}, key, nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		store, err := NewStore(a, StoreOptions{Now: func() time.Time { return noon }})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := store.Leaf(t.Context(), "api.example.com")
		if err != nil {
			t.Fatal(err)
		}
		shown := printAll(t, a, *a, store, leaf, *leaf, struct{ a *Authority }{a}, struct{ a Authority }{*a}, struct{ A Authority }{*a},
			struct{ A *Authority }{a}, map[string]any{"a": a}, []any{*a, leaf.PrivateKey}, leaf.PrivateKey, struct{ k any }{leaf.PrivateKey})
		for _, secret := range append(secretsOf(t, key), secretsOf(t, store.key.key)...) {
			if strings.Contains(shown, secret) {
				t.Errorf("%s: the private key is shown as %.20s…", kind, secret)
			}
		}
		if !strings.Contains(a.String(), "CN=ca") || !strings.Contains(fmt.Sprintf("%#v", a), "sha256:") {
			t.Errorf("%v says too little", a)
		}
	}
	var none *Authority
	if s := fmt.Sprint(none, &Authority{}); !strings.Contains(s, "none") {
		t.Errorf("no CA prints as %q", s)
	}
	if s := printAll(t, &Authority{}); !strings.Contains(s, "null") {
		t.Errorf("no CA prints as %q", s)
	}
	if a := authority(t, "P-256"); a.GoString() != a.String() {
		t.Error("GoString shows more than String")
	}
	if none.Fingerprint() != "" {
		t.Error("no CA has a fingerprint")
	}
}

func printAll(t *testing.T, values ...any) string {
	t.Helper()
	var out bytes.Buffer
	text, lines := slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text.Info("x", "v", v)
		lines.Info("x", "v", v)
		if data, err := json.Marshal(v); err == nil {
			out.Write(data)
		}
	}
	return out.String()
}

// secretsOf are spellings of the private scalar, seed or exponent.
func secretsOf(t *testing.T, key crypto.Signer) []string {
	t.Helper()
	raw := privateBytes(t, key)
	decimal := strings.Trim(fmt.Sprint(raw[:12]), "[]")
	b64, err := json.Marshal(raw[:24])
	if err != nil {
		t.Fatal(err)
	}
	hexes := hex.EncodeToString(raw[:12])
	return []string{hexes, strings.ToUpper(hexes), decimal, strings.ReplaceAll(decimal, " ", ", "), strings.Trim(string(b64), `"`), new(big.Int).SetBytes(raw).String()}
}

func privateBytes(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return key.Seed()
	case *rsa.PrivateKey:
		return key.D.Bytes()
	case *ecdsa.PrivateKey:
		raw, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	t.Fatalf("no private bytes of a %T", key)
	return nil
}

func TestEqual(t *testing.T) {
	key := testKey(t, "P-256")
	ca := sign(t, caOf("ca"), key, nil, nil)
	load := func(roots ...*x509.Certificate) *Authority {
		a, err := New([]*x509.Certificate{ca}, key, roots, noon)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := load()
	if !a.Equal(load()) || a.Equal(nil) || a.Equal(authority(t, "P-256")) {
		t.Error("Equal is wrong about the certificate")
	}
	if a.Equal(load(sign(t, caOf("next"), key, nil, nil))) {
		t.Error("another root in the bundle is a difference")
	}
	if a.NotAfter() != ca.NotAfter {
		t.Error("NotAfter is another")
	}
}
