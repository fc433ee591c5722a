package certs

import (
	"bytes"
	"crypto/x509"
	"io"
	"slices"
	"testing"

	"software.sslmate.com/src/go-pkcs12"
)

func TestBundleHasNoDoublesAndAStableOrder(t *testing.T) {
	key := testKey(t, "P-256")
	a, b, c := sign(t, caOf("a"), key, nil, nil), sign(t, caOf("b"), key, nil, nil), sign(t, caOf("c"), key, nil, nil)
	damaged := encodeCert([]byte("not DER"))
	system := slices.Concat([]byte("# comment\n"), certsPEM(a), damaged, keyPEM(t, key), certsPEM(b, a))
	trust, err := Bundle(system, certsPEM(c, b), certsPEM(c))
	if err != nil {
		t.Fatal(err)
	}
	if want := certsPEM(a, b, c); trust.Len() != 3 || !bytes.Equal(trust.PEM(), want) {
		t.Errorf("%d certificates:\n%s", trust.Len(), trust.PEM())
	}
	if trust, err := Bundle(nil, certsPEM(c)); err != nil || trust.Len() != 1 {
		t.Errorf("without a system's bundle: %v", err)
	}
	_, err = Bundle(nil)
	fails(t, err, "no certificate")
	_, err = Bundle(system, certsPEM(a), damaged)
	fails(t, err, "extra part 2")
}

func TestSystemBundle(t *testing.T) {
	dir := t.TempDir()
	ca := certsPEM(sign(t, caOf("a"), testKey(t, "P-256"), nil, nil))
	empty, good := write(t, dir, "empty", nil), write(t, dir, "good", ca)
	path, text, err := SystemBundle([]string{dir + "/missing", dir, empty, good})
	if err != nil || path != good || !bytes.Equal(text, ca) {
		t.Errorf("%s, %v", path, err)
	}
	_, _, err = SystemBundle([]string{})
	fails(t, err, "ca-certificates package")
	// Whatever this machine has: a bundle with certificates, or the error.
	if path, text, err := SystemBundle(nil); err == nil && (len(Certificates(text)) == 0 || !slices.Contains(SystemBundlePaths(), path)) {
		t.Errorf("%s holds nothing", path)
	}
}

func TestPKCS12TrustStore(t *testing.T) {
	key, next := testKey(t, "P-256"), testKey(t, "P-256")
	odd := caOf("odd")
	odd.Subject.CommonName = "Größe 🔑"
	// Two roots of one subject: Java would keep one of them if the alias were the subject.
	list := []*x509.Certificate{sign(t, caOf("a"), key, nil, nil), sign(t, caOf("a"), next, nil, nil), sign(t, odd, key, nil, nil)}
	trust, err := Bundle(certsPEM(list...))
	if err != nil {
		t.Fatal(err)
	}
	store, err := trust.PKCS12("changeit")
	if err != nil {
		t.Fatal(err)
	}
	back, err := pkcs12.DecodeTrustStore(store, "changeit")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(back, list, func(a, b *x509.Certificate) bool { return a.Equal(b) }) {
		t.Errorf("%d of %d certificates came back", len(back), len(list))
	}
	if again, err := trust.PKCS12("changeit"); err != nil || !bytes.Equal(store, again) {
		t.Errorf("the same list gives other bytes: %v", err)
	}
	if other, err := trust.PKCS12("other"); err != nil || bytes.Equal(store, other) {
		t.Errorf("another password gives the same bytes: %v", err)
	}
	_, err = trust.PKCS12("🔑")
	fails(t, err, "trust store")
	seen := make(map[string]bool)
	for _, c := range list {
		sum := [32]byte{}
		copy(sum[:], c.Signature)
		alias := aliasOf(c, sum)
		if seen[alias] || bytes.ContainsFunc([]byte(alias), func(r rune) bool { return r > '~' }) {
			t.Errorf("alias %q", alias)
		}
		seen[alias] = true
	}
}

func TestHashStream(t *testing.T) {
	whole, parts := make([]byte, 100), make([]byte, 100)
	if _, err := io.ReadFull(&hashStream{seed: []byte("x")}, whole); err != nil {
		t.Fatal(err)
	}
	h := &hashStream{seed: []byte("x")}
	for i := 0; i < 100; i += 7 {
		if _, err := h.Read(parts[i:min(i+7, 100)]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(whole, parts) {
		t.Error("the stream depends on how it is read")
	}
}
