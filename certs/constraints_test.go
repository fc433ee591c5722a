package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// issuedConstraints is the extension as crypto/x509 writes it into a certificate.
func issuedConstraints(t *testing.T, permit ...string) []byte {
	t.Helper()
	tmpl := caOf("constrained")
	if err := constrain(tmpl, permit); err != nil {
		t.Fatal(err)
	}
	key := testKey(t, "P-256")
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, ext := range cert.Extensions {
		if ext.Id.String() == "2.5.29.30" {
			return ext.Value
		}
	}
	t.Fatal("crypto/x509 wrote no constraints")
	return nil
}

func TestNameConstraintsAreTheBytesOfCryptoX509(t *testing.T) {
	for _, permit := range [][]string{
		{"a.example"},
		{"a.example", "b.test.example"},
		{"10.0.0.0/8"},
		{"10.0.0.0/8", "2001:db8::/32"},
		{"a.example", "192.0.2.1/32"},
	} {
		got, err := NameConstraints(permit)
		if err != nil {
			t.Fatal(err)
		}
		if want := issuedConstraints(t, permit...); !bytes.Equal(got, want) {
			t.Errorf("%q: %x, crypto/x509 writes %x", permit, got, want)
		}
	}
}

func TestNameConstraintsDependOnWhatIsPermittedAlone(t *testing.T) {
	for _, row := range []struct{ one, other []string }{
		{[]string{"a.example", "b.example"}, []string{"b.example", "a.example", "b.example"}},
		{[]string{"*.example"}, []string{"x.y.example", "*.example", "a.*.example"}},
		{[]string{"example.com", "ample.com"}, []string{"ample.com", "x.example.com", "example.com"}},
		{[]string{"10.0.0.0/8"}, []string{"10.1.0.0/16", "10.0.0.0/8", "10.0.0.1"}},
		{[]string{"10.0.0.0/8", "2001:db8::/32"}, []string{"2001:db8::/32", "2001:db8:1::/48", "10.0.0.0/8"}},
	} {
		one, err := NameConstraints(row.one)
		if err != nil {
			t.Fatal(err)
		}
		other, err := NameConstraints(row.other)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, other) {
			t.Errorf("%q and %q differ", row.one, row.other)
		}
	}
	one, err1 := NameConstraints([]string{"a.example"})
	other, err2 := NameConstraints([]string{"a.example", "ba.example"})
	if err1 != nil || err2 != nil || bytes.Equal(one, other) {
		t.Error("a name that only ends like another was left out")
	}
}

func TestNameConstraintsRefuseWhatX509CannotSay(t *testing.T) {
	for want, permit := range map[string][]string{
		"make no CA": nil, "every host": {"a.example", "*"}, "not a canonical": {"-a.example"}, "not a CIDR": {"10.0.0.0/40"},
	} {
		_, err := NameConstraints(permit)
		fails(t, err, want)
	}
}

// TestNameConstraintsWithoutWhatIsCovered compares with constrain, which leaves nothing out, by what both permit.
func TestNameConstraintsWithoutWhatIsCovered(t *testing.T) {
	permit := []string{"x.a.example", "a.example", "*.b.example", "c.b.example", "10.0.0.0/8", "10.2.0.0/16", "192.0.2.1"}
	der, err := NameConstraints(permit)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(der, []byte("example")); n != 2 {
		t.Errorf("%d names, want a.example and b.example", n)
	}
	for _, gone := range []string{"x.a", "c.b"} {
		if strings.Contains(string(der), gone) {
			t.Errorf("%s is below a name that is there", gone)
		}
	}
	for _, addr := range []string{"10.0.0.0", "192.0.2.1"} {
		if !bytes.Contains(der, netip.MustParseAddr(addr).AsSlice()) {
			t.Errorf("%s is missing: %s", addr, fmt.Sprintf("%x", der))
		}
	}
}
