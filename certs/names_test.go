package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// constrained is the CA that `ca init --permit` writes.
func constrained(t testing.TB, permit ...string) *Authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if err := Init(dir, permit, noon); err != nil {
		t.Fatal(err)
	}
	a, err := LoadDir(dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// forced is a leaf for host that the CA's key signed though its constraints do not permit it: what a thief of the key makes.
func forced(t testing.TB, a *Authority, host string) *x509.Certificate {
	t.Helper()
	free := *a
	unbound := *a.cert
	unbound.PermittedDNSDomains, unbound.ExcludedDNSDomains, unbound.PermittedIPRanges, unbound.ExcludedIPRanges = nil, nil, nil, nil
	free.path = []*x509.Certificate{&unbound}
	leaf, err := free.Mint(host, leafKey(t), noon)
	if err != nil {
		t.Fatal(err)
	}
	return leaf.Leaf
}

func TestK01ConstrainedIntermediate(t *testing.T) {
	for _, row := range []struct {
		permit, allow, deny []string
	}{
		{
			[]string{"api.openai.com", "*.example.com", "a.*.test.example"},
			[]string{"api.openai.com", "x.api.openai.com", "example.com", "a.example.com", "a.b.example.com", "a.b.test.example"},
			[]string{"openai.com", "evil-api.openai.com", "notexample.com", "example.com.evil", "example", "192.0.2.1", "2001:db8::1", "10.0.0.1"},
		},
		{
			[]string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.1"},
			[]string{"10.1.2.3", "2001:db8::5", "192.0.2.1"},
			[]string{"11.0.0.1", "192.0.2.2", "2001:db9::1", "api.openai.com", "localhost"},
		},
		{[]string{"10.0.0.0/8", "x.test"}, []string{"x.test", "10.0.0.1"}, []string{"y.test", "2001:db8::1", "::1", "11.0.0.1"}},
	} {
		t.Run(strings.Join(row.permit, " "), func(t *testing.T) {
			a := constrained(t, row.permit...)
			if len(a.sent) != 1 || selfSigned(a.cert) || !a.cert.MaxPathLenZero || !a.cert.PermittedDNSDomainsCritical {
				t.Error("what signs is not a constrained intermediate")
			}
			for _, root := range a.Roots() {
				if root.Equal(a.cert) || len(root.PermittedDNSDomains)+len(root.ExcludedIPRanges) != 0 {
					t.Error("the root is constrained, which some clients ignore, or it is what signs")
				}
			}
			for _, host := range row.allow {
				leaf, err := a.Mint(host, leafKey(t), noon)
				if err != nil {
					t.Errorf("%s: %v", host, err)
					continue
				}
				if err := handshake(t, host, leaf, a.Roots(), 0); err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
			for _, host := range row.deny {
				if _, err := a.Mint(host, leafKey(t), noon); !errors.Is(err, ErrNotPermitted) {
					t.Errorf("%s is minted: %v", host, err)
				}
				if err := verify(a, forced(t, a, host)); err == nil {
					t.Errorf("Go verifies %s, which a stolen key signed", host)
				}
			}
		})
	}
}

func verify(a *Authority, leaf *x509.Certificate) error {
	roots, inter := a.pools([]*x509.Certificate{a.cert})
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: noon})
	return err
}

// TestPermitsAgreesWithX509 asks both about constraints that other issuers write: leading dots, exclusions inside
// permissions, upper case, IPv4-mapped ranges, constraints in the root.
func TestPermitsAgreesWithX509(t *testing.T) {
	cidr := func(s string) *net.IPNet { return ipNet(netip.MustParsePrefix(s)) }
	hosts := []string{"example.com", "a.example.com", "a.b.example.com", "bexample.com", "com", "x.test", "evil.x.test", "a.evil.x.test", "localhost",
		"10.0.0.1", "10.1.0.1", "192.0.2.1", "2001:db8::1", "::1", "::a00:1"}
	for i, edit := range []func(*x509.Certificate){
		func(*x509.Certificate) {},
		func(c *x509.Certificate) { c.PermittedDNSDomains = []string{".example.com"} },
		func(c *x509.Certificate) {
			c.PermittedDNSDomains = []string{"EXAMPLE.com", "x.test"}
			c.ExcludedDNSDomains = []string{"evil.x.test"}
		},
		func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{""} },
		func(c *x509.Certificate) {
			c.PermittedDNSDomains = []string{"com"}
			c.PermittedIPRanges = []*net.IPNet{cidr("10.0.0.0/8")}
		},
		func(c *x509.Certificate) { c.ExcludedIPRanges = []*net.IPNet{cidr("10.0.0.0/16"), cidr("::/0")} },
		func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{cidr("10.0.0.0/8"), cidr("2001:db8::/32")}
			c.ExcludedIPRanges = []*net.IPNet{cidr("10.1.0.0/16")}
		},
		func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{cidr("::/0")} },
	} {
		for _, where := range []string{"root", "intermediate"} {
			t.Run(fmt.Sprint(i, " ", where), func(t *testing.T) {
				rootKey, key := testKey(t, "P-256"), testKey(t, "P-256")
				rootTmpl, tmpl := caOf("root"), caOf("ca")
				if where == "root" {
					edit(rootTmpl)
				} else {
					edit(tmpl)
				}
				root := sign(t, rootTmpl, rootKey, nil, nil)
				a, err := New([]*x509.Certificate{sign(t, tmpl, key, root, rootKey), root}, key, nil, noon)
				if err != nil {
					t.Fatal(err)
				}
				for _, host := range hosts {
					if got, want := a.Permits(host), verify(a, forced(t, a, host)) == nil; got != want {
						t.Errorf("Permits(%s) is %v and x509 says %v", host, got, want)
					}
				}
			})
		}
	}
	if (&Authority{}).Permits("a.test") {
		t.Error("no CA permits a name")
	}
}

func TestPermitList(t *testing.T) {
	tmpl := &x509.Certificate{}
	if err := constrain(tmpl, []string{"a.test", "*.a.test", "*.b.*.a.test", "10.0.0.0/8"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(tmpl.PermittedDNSDomains, []string{"a.test"}) || len(tmpl.PermittedIPRanges) != 1 || tmpl.ExcludedIPRanges != nil || tmpl.ExcludedDNSDomains != nil {
		t.Errorf("%v %v", tmpl.PermittedDNSDomains, tmpl.PermittedIPRanges)
	}
	for entry, about := range map[string]string{
		"":                    "0 bytes long",
		"*":                   "every host",
		"a.*":                 "every host",
		"*.*":                 "every host",
		"Example.com":         `'E'`,
		"https://a.test":      "not a CIDR range",
		"a.test:443":          `':'`,
		"*a.test":             `'*'`,
		"*.192.0.2.1":         "CIDR range",
		"10.0.0.1/8":          "write 10.0.0.0/8",
		"10.0.0.0/33":         "not a CIDR range",
		"::ffff:10.0.0.0/104": "IPv4 in IPv6",
		"a.test.":             "trailing dot",
	} {
		fails(t, constrain(&x509.Certificate{}, []string{entry}), about)
	}
}
