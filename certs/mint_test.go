package certs

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestGoldenLeafIsWhatCreateCertificateWrites holds the fast mint to the standard library: the same fields give the same
// TBSCertificate, byte for byte, for every key type, form of name and length of length.
func TestGoldenLeafIsWhatCreateCertificateWrites(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61)
	for _, kind := range []string{"P-256", "P-384", "RSA-2048", "Ed25519"} {
		key := testKey(t, kind)
		ca := sign(t, caOf("golden "+kind, func(c *x509.Certificate) { c.NotAfter = noon.AddDate(50, 0, 0) }), key, nil, nil)
		a, err := New([]*x509.Certificate{ca}, key, nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		k := leafKey(t)
		for _, host := range []string{"a.test", "xn--bcher-kva.example", "_srv.example.com", "192.0.2.1", "2001:db8::1", strings.Repeat("c", 60) + "." + strings.Repeat("d", 60), long} {
			for _, now := range []time.Time{noon, time.Date(2049, 12, 31, 12, 0, 0, 0, time.UTC), time.Date(2050, 1, 2, 0, 0, 0, 0, time.UTC)} {
				fast, err := a.Mint(host, k, now)
				if err != nil {
					t.Fatal(err)
				}
				leaf := fast.Leaf
				slow := &x509.Certificate{
					SerialNumber: leaf.SerialNumber, NotBefore: now.Add(-Backdate), NotAfter: now.Add(LeafLife - Backdate),
					KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				}
				if ip := net.ParseIP(host); ip != nil {
					slow.IPAddresses = []net.IP{ip}
				} else {
					slow.DNSNames = []string{host}
				}
				der, err := x509.CreateCertificate(rand.Reader, slow, ca, k.Public(), key)
				if err != nil {
					t.Fatal(err)
				}
				want, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(leaf.RawTBSCertificate, want.RawTBSCertificate) {
					t.Errorf("%s, %s, %s: another TBSCertificate:\n%x\n%x", kind, host, now, leaf.RawTBSCertificate, want.RawTBSCertificate)
				}
				if leaf.SignatureAlgorithm != want.SignatureAlgorithm || leaf.CheckSignatureFrom(ca) != nil {
					t.Errorf("%s, %s: the signature is wrong", kind, host)
				}
			}
		}
	}
}

func TestLeafShape(t *testing.T) {
	a := authority(t, "P-384")
	k := leafKey(t)
	for _, host := range []string{"api.example.com", "192.0.2.1"} {
		got, err := a.Mint(host, k, noon.Add(300*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		leaf := got.Leaf
		switch {
		case len(leaf.DNSNames)+len(leaf.IPAddresses) != 1 || leaf.VerifyHostname(host) != nil:
			t.Errorf("names %v %v", leaf.DNSNames, leaf.IPAddresses)
		case leaf.Subject.String() != "":
			t.Errorf("subject %q", leaf.Subject)
		case leaf.IsCA, len(leaf.EmailAddresses)+len(leaf.URIs) != 0:
			t.Error("more than a server's certificate")
		case leaf.KeyUsage != x509.KeyUsageDigitalSignature, len(leaf.ExtKeyUsage) != 1, leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth:
			t.Errorf("usages %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
		case !bytes.Equal(leaf.AuthorityKeyId, a.cert.SubjectKeyId) || len(leaf.AuthorityKeyId) == 0:
			t.Errorf("authority key identifier %x", leaf.AuthorityKeyId)
		case leaf.NotBefore != noon.Add(-Backdate), leaf.NotAfter.Sub(leaf.NotBefore) != LeafLife:
			t.Errorf("from %s to %s", leaf.NotBefore, leaf.NotAfter)
		case !k.key.PublicKey.Equal(leaf.PublicKey), k.key.PublicKey.Equal(a.cert.PublicKey), got.PrivateKey != crypto.PrivateKey(k):
			t.Error("the key is not the leaf key")
		case leaf.SerialNumber.BitLen() > 128, leaf.SerialNumber.BitLen() < 64:
			t.Errorf("serial %x", leaf.SerialNumber)
		}
		for _, e := range leaf.Extensions {
			if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) && !e.Critical {
				t.Error("the alternative name is not critical though the subject is empty")
			}
		}
	}
}

func TestK04LeafEndsWithItsCA(t *testing.T) {
	rootKey, key := testKey(t, "P-256"), testKey(t, "P-256")
	end := noon.Add(90 * time.Minute)
	root := sign(t, caOf("root", func(c *x509.Certificate) { c.NotAfter = end }), rootKey, nil, nil)
	born := noon.Add(-time.Minute)
	signer := sign(t, caOf("signer", func(c *x509.Certificate) { c.NotBefore = born }), key, root, rootKey)
	a, err := New([]*x509.Certificate{signer, root}, key, nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	if a.NotAfter() != end {
		t.Errorf("the CA ends at %s, its root at %s", a.NotAfter(), end)
	}
	leaf, err := a.Mint("api.example.com", leafKey(t), noon)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Leaf.NotAfter != end || leaf.Leaf.NotBefore != born {
		t.Errorf("from %s to %s; the chain is valid from %s to %s", leaf.Leaf.NotBefore, leaf.Leaf.NotAfter, born, end)
	}
	for _, now := range []time.Time{end.Add(time.Second), born.Add(-time.Second)} {
		if _, err := a.Mint("api.example.com", leafKey(t), now); !errors.Is(err, ErrExpired) {
			t.Errorf("at %s: %v", now, err)
		}
	}
}

func TestK04LeafEndsWithItsIntermediate(t *testing.T) {
	rootKey, key := testKey(t, "P-256"), testKey(t, "P-256")
	root := sign(t, caOf("root", func(c *x509.Certificate) { c.NotBefore = noon.Add(-time.Second) }), rootKey, nil, nil)
	end := noon.Add(time.Hour)
	signer := sign(t, caOf("signer", func(c *x509.Certificate) { c.NotAfter = end }), key, root, rootKey)
	a, err := New([]*x509.Certificate{signer}, key, []*x509.Certificate{root}, noon)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := a.Mint("api.example.com", leafKey(t), noon)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Leaf.NotAfter != end || leaf.Leaf.NotBefore != root.NotBefore {
		t.Errorf("from %s to %s", leaf.Leaf.NotBefore, leaf.Leaf.NotAfter)
	}
}

func TestK07SerialsAreUniqueAcrossAThousandStores(t *testing.T) {
	a := authority(t, "Ed25519")
	seen := make(map[string]bool)
	for range 1000 {
		s, err := NewStore(a, StoreOptions{Now: func() time.Time { return noon }, Capacity: 4})
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := s.Leaf(t.Context(), "api.example.com")
		if err != nil {
			t.Fatal(err)
		}
		seen[leaf.Leaf.SerialNumber.String()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d serials for 1000 leaves", len(seen))
	}
}

func TestMintRefusesWithoutItsParts(t *testing.T) {
	var none *Authority
	_, err := none.Mint("a.test", leafKey(t), noon)
	fails(t, err, "no CA")
	_, err = (&Authority{}).Mint("a.test", leafKey(t), noon)
	fails(t, err, "no CA")
	a := authority(t, "P-256")
	_, err = a.Mint("a.test", nil, noon)
	fails(t, err, "no leaf key")
	a.sign = func([]byte) ([]byte, error) { return nil, errors.New("out of order") }
	_, err = a.Mint("a.test", leafKey(t), noon)
	fails(t, err, "minting a leaf for a.test: out of order")
	a.sign = func([]byte) ([]byte, error) { return nil, nil }
	a.form.algorithm = []byte("not DER")
	_, err = a.Mint("a.test", leafKey(t), noon)
	fails(t, err, "minting a leaf for a.test: x509")
}

// TestA05HostileNames: crypto/tls hands these to GetCertificate as the client sent them.
func TestA05HostileNames(t *testing.T) {
	a := authority(t, "P-256")
	store, err := NewStore(a, StoreOptions{Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"", ".", "..", "a..b", ".a.test", "a.test.", "A.test", "evil.test\x00.allowed.test", "a.test\n", "a\r\nb.test", "a,b.test", "*", "*.a.test",
		"a*.test", "a b.test", "a\xff.test", "bücher.example", "-a.test", "a.-b.test", "a/b", "a:443", "[::1]", "user@a.test", "a.test%00",
		strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 127) + "ab", strings.Repeat("x", 1<<20),
		"127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.4.5", "256.0.0.1", "1.0x7f", "::ffff:192.0.2.1", "2001:DB8::1", "2001:db8:0::1", "fe80::1%eth0",
	} {
		_, err := store.Leaf(t.Context(), host)
		if !errors.Is(err, ErrHost) {
			t.Errorf("Leaf(%.80q): %v", host, err)
			continue
		}
		if len(err.Error()) > 600 || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x00\n\r") {
			t.Errorf("Leaf(%.80q): the error is not fit for a log: %.700q", host, err)
		}
		if a.Permits(host) {
			t.Errorf("Permits(%.80q)", host)
		}
		leaf, err := a.Mint("a.test", store.key, noon)
		if err != nil {
			t.Fatal(err)
		}
		store.Set(host, leaf)
		if _, ok := store.Get(host); ok {
			t.Errorf("%.80q is in the cache", host)
		}
	}
	if st := store.Stats(); st.Size != 0 || st.Mints != 0 {
		t.Errorf("something was minted: %+v", st)
	}
	for _, host := range []string{"a", "a.test", "a-.test", "a_b.test", "_dmarc.a.test", "1a.test", "1.2.3.4a", "xn--bcher-kva.example", "0.example", "127.0.0.1", "::1",
		strings.Repeat("a.", 126) + "b"} {
		if _, err := store.Leaf(t.Context(), host); err != nil {
			t.Errorf("Leaf(%q): %v", host, err)
		}
	}
}

// FuzzHost: a name that is taken is one that crypto/x509 takes back, alone and as it was written.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.test", "127.0.0.1", "::1", "A", "a\x00b", "1.2.3", "xn--a"} {
		f.Add(s)
	}
	key := testKey(f, "Ed25519")
	ca := sign(f, caOf("fuzz"), key, nil, nil)
	a, err := New([]*x509.Certificate{ca}, key, nil, noon)
	if err != nil {
		f.Fatal(err)
	}
	k := leafKey(f)
	f.Fuzz(func(t *testing.T, host string) {
		leaf, err := a.Mint(host, k, noon)
		if err != nil {
			return
		}
		if leaf.Leaf.VerifyHostname(host) != nil {
			t.Errorf("the leaf for %q is not for it", host)
		}
		names := leaf.Leaf.DNSNames
		for _, ip := range leaf.Leaf.IPAddresses {
			addr, _ := netip.AddrFromSlice(ip)
			names = append(names, addr.String())
		}
		if len(names) != 1 || names[0] != host {
			t.Errorf("the leaf for %q names %q", host, names)
		}
	})
}

func TestFormOfAnUnknownShapeIsRefused(t *testing.T) {
	good := authority(t, "P-256")
	leaf, err := good.Mint("a.test", leafKey(t), noon)
	if err != nil {
		t.Fatal(err)
	}
	harm := map[string]func(c *x509.Certificate){
		"algorithm":     func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA512 },
		"outer":         func(c *x509.Certificate) { c.Raw = []byte{0x30, 0} },
		"not DER":       func(c *x509.Certificate) { c.RawTBSCertificate = []byte("x") },
		"inner not DER": func(c *x509.Certificate) { c.RawTBSCertificate = []byte{0x30, 1, 0x30} },
		"no extensions": func(c *x509.Certificate) { c.RawTBSCertificate = tbsWith(t, nil) },
		"one extension": func(c *x509.Certificate) { c.RawTBSCertificate = tbsWith(t, make([]pkix.Extension, 1)) },
	}
	for name, h := range harm {
		c := *leaf.Leaf
		h(&c)
		if _, err := cutForm(&c); !errors.Is(err, errForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tbsWith is a sequence of eight elements, the last of which holds the extensions, or nothing.
func tbsWith(t *testing.T, exts []pkix.Extension) []byte {
	t.Helper()
	last := []byte{tagExtensions, 0}
	if exts != nil {
		for i := range exts {
			exts[i].Id = asn1.ObjectIdentifier{1, 2, 3}
		}
		list, err := asn1.Marshal(exts)
		if err != nil {
			t.Fatal(err)
		}
		last = append(header(tagExtensions, len(list)), list...)
	}
	body := append(bytes.Repeat([]byte{0x05, 0}, 7), last...)
	return append(header(tagSequence, len(body)), body...)
}

func TestIntegers(t *testing.T) {
	for _, b := range [][]byte{{0}, {0, 0}, {1}, {0x7f}, {0x80}, {0, 0x80, 1}, bytes.Repeat([]byte{0xff}, 16)} {
		want, err := asn1.Marshal(new(big.Int).SetBytes(b))
		if err != nil {
			t.Fatal(err)
		}
		if got := appendInteger(nil, b); !bytes.Equal(got, want) {
			t.Errorf("%x is written as %x, not %x", b, got, want)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	for _, kind := range []string{"P-256", "P-384", "Ed25519", "RSA-2048"} {
		b.Run(kind, func(b *testing.B) {
			a := authority(b, kind)
			k := leafKey(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Mint("api.example.com", k, noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCreateCertificate is what BenchmarkMint is to be compared with.
func BenchmarkCreateCertificate(b *testing.B) {
	key := testKey(b, "P-256")
	ca := sign(b, caOf("ca"), key, nil, nil)
	k := leafKey(b)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: noon, NotAfter: noon.Add(time.Hour), DNSNames: []string{"api.example.com"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x509.CreateCertificate(rand.Reader, tmpl, ca, k.Public(), key); err != nil {
			b.Fatal(err)
		}
	}
}
