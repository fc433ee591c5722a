package certs

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
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

func TestConstraintsCoverWhatTheyPermit(t *testing.T) {
	of := func(permit ...string) []byte {
		der, err := NameConstraints(permit)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, row := range []struct {
		wide, narrow []string
		want         bool
	}{
		{[]string{"a.example"}, []string{"a.example"}, true},
		{[]string{"a.example", "b.example"}, []string{"a.example"}, true},
		{[]string{"a.example"}, []string{"x.a.example"}, true},
		{[]string{"*.example"}, []string{"a.example", "b.example"}, true},
		{[]string{"a.example", "10.0.0.0/8"}, []string{"a.example"}, true},
		{[]string{"10.0.0.0/8", "a.example"}, []string{"10.1.0.0/16", "a.example"}, true},
		{[]string{"10.0.0.0/8", "a.example"}, []string{"a.example"}, true},
		{[]string{"a.example", "2001:db8::/32"}, []string{"2001:db8:1::/48"}, true},
		{[]string{"a.example"}, []string{"a.example", "b.example"}, false},
		{[]string{"a.example"}, []string{"ba.example"}, false},
		{[]string{"x.a.example"}, []string{"a.example"}, false},
		{[]string{"a.example"}, []string{"a.example", "10.0.0.0/8"}, false},
		{[]string{"10.0.0.0/8"}, []string{"10.0.0.0/8", "a.example"}, false},
		{[]string{"10.1.0.0/16"}, []string{"10.0.0.0/8"}, false},
		{[]string{"10.0.0.0/8"}, []string{"11.0.0.0/16"}, false},
		{[]string{"2001:db8::/32"}, []string{"10.0.0.0/8"}, false},
	} {
		if got := ConstraintsCover(of(row.wide...), of(row.narrow...)); got != row.want {
			t.Errorf("%q covers %q: %v", row.wide, row.narrow, got)
		}
	}
}

// Constraints that NameConstraints does not write, and what is not understood.
func TestConstraintsCoverNothingThatIsNotUnderstood(t *testing.T) {
	good, err := NameConstraints([]string{"a.example"})
	if err != nil {
		t.Fatal(err)
	}
	tree := func(tag int, content ...byte) []generalSubtree {
		return []generalSubtree{{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: content}}}
	}
	der := func(c nameConstraints) []byte {
		out, err := asn1.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for what, other := range map[string][]byte{
		"nothing":               nil,
		"something behind":      append(bytes.Clone(good), 0),
		"a form of its own":     der(nameConstraints{Permitted: tree(1, []byte("mail@a.example")...)}),
		"half an address":       der(nameConstraints{Permitted: tree(7, 10, 0, 0, 0)}),
		"DNS names left free":   der(nameConstraints{Excluded: tree(2, []byte("b.example")...)}),
		"addresses left free":   der(nameConstraints{Permitted: tree(2, []byte("a.example")...)}),
		"another class of name": der(nameConstraints{Permitted: []generalSubtree{{asn1.RawValue{Class: asn1.ClassApplication, Tag: 2, Bytes: []byte("a.example")}}}}),
	} {
		if ConstraintsCover(good, other) {
			t.Errorf("a.example alone covers %s", what)
		}
	}
	if ConstraintsCover(nil, good) {
		t.Error("nothing covers a.example")
	}
	if but := der(nameConstraints{Excluded: tree(2, []byte("b.example")...)}); ConstraintsCover(but, der(nameConstraints{Excluded: tree(2, []byte("x.b.example")...)})) ||
		!ConstraintsCover(but, der(nameConstraints{Excluded: tree(2, []byte("example")...)})) {
		t.Error("an exclusion must be excluded as well")
	}
}
