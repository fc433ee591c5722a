package podca_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// confined is a root and an intermediate below it that a constraint confines.
type confined struct {
	root root
	ca   *x509.Certificate
	key  root // to sign as ca
}

func confine(t testing.TB, r root, c podca.Constraint) confined {
	t.Helper()
	key := newKey(t, elliptic.P256())
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "pod"}, NotBefore: r.cert.NotBefore, NotAfter: time.Now().Add(podca.Life),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if !c.Unconstrained {
		tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: c.DER}}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, &key.PublicKey, r.key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return confined{r, ca, root{ca, key}}
}

// leaf is what the intermediate's key signs for a host, permitted or not.
func (c confined) leaf(t testing.TB, host string) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: c.ca.NotBefore, NotAfter: c.ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if addr, err := netip.ParseAddr(host); err == nil {
		tmpl.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.ca, &c.key.key.PublicKey, c.key.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// permits asks Go's verifier.
func (c confined) permits(t testing.TB, host string) bool {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.root.cert)
	between.AddCert(c.ca)
	_, err := c.leaf(t, host).Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
	if err != nil && !strings.Contains(err.Error(), "constraint") && !strings.Contains(err.Error(), "permitted") {
		t.Fatalf("%s: %v", host, err)
	}
	return err == nil
}

func TestK01ConstraintsPermitWhatThePolicyCouldAllowAndNoMore(t *testing.T) {
	r := newRoot(t, "support root")
	for _, row := range []struct{ hosts, allow, deny string }{
		{"api.example.com", "api.example.com", "example.com,evil.example,xapi.example.com,192.0.2.1,2001:db8::1"},
		{"a.test,b.test", "a.test,b.test", "c.test,test.b,a.test.evil,10.0.0.1"},
		{"*.example.com", "a.example.com,a.b.example.com", "notexample.com,com,192.0.2.1"},
		{"a.*.example.com", "a.b.example.com", "example.org,10.0.0.1"},
		{"10.0.0.0/8,2001:db8::/32", "10.1.2.3,2001:db8::7", "11.0.0.1,2001:db9::1,example.com,localhost"},
		{"10.0.0.0/8", "10.1.2.3", "11.0.0.1,::1,2001:db8::1,example.com"},
		{"192.0.2.1/32,x.test", "192.0.2.1,x.test", "192.0.2.2,y.test,2001:db8::1"},
		{"*", "anything.example,10.0.0.1,2001:db8::1", ""},
	} {
		c := constraint(t, row.hosts)
		if c.Unconstrained != (row.hosts == "*") || c.Unconstrained && c.Why == "" {
			t.Errorf("%s: %+v", row.hosts, c)
		}
		ca := confine(t, r, c)
		for host := range strings.SplitSeq(row.allow, ",") {
			if !ca.permits(t, host) {
				t.Errorf("%s: %s is not permitted", row.hosts, host)
			}
		}
		for host := range strings.SplitSeq(row.deny, ",") {
			if row.deny != "" && ca.permits(t, host) {
				t.Errorf("%s: %s is permitted", row.hosts, host)
			}
		}
	}
}

func TestConstraintsOfAPolicyThatNamesNoHostAreNone(t *testing.T) {
	for what, set := range map[string]*policy.Set{
		"no set":      nil,
		"a deny rule": compileRules(t, "  rules: [{hosts: [a.example], action: deny}]\n"),
		"passthrough": compileRules(t, "  rules: [{hosts: [a.example], tls: passthrough}]\n"),
		"plain http":  compileRules(t, "  rules: [{hosts: [a.example], scheme: http}]\n"),
		"no rule":     compileRules(t, "  rules: []\n"),
	} {
		c, err := podca.Constraints(set, bot)
		if err != nil || !c.IsZero() {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
		tmpl, err := podca.NewTemplate(link.Pod{Namespace: "support", UID: uid}, c)
		if err != nil || !tmpl.None() || len(tmpl.RawSubject) > 0 {
			t.Errorf("%s: template %+v, %v", what, tmpl, err)
		}
	}
	c, err := podca.Constraints(compile(t, "a.example"), identity.Principal{Namespace: "other", ServiceAccount: "x"})
	if err != nil || !c.IsZero() {
		t.Errorf("an agent without a policy: %+v, %v", c, err)
	}
}

func TestADenyRuleDoesNotWidenTheConstraints(t *testing.T) {
	plain := constraint(t, "a.example")
	both, err := podca.Constraints(compileRules(t, "  rules: [{hosts: [a.example]}, {hosts: [evil.example, '*'], action: deny}]\n"), bot)
	if err != nil || !bytes.Equal(plain.DER, both.DER) || both.Unconstrained {
		t.Errorf("%+v, %v", both, err)
	}
}

func TestObserversAndListsThatNoHandshakeCarriesAreUnconstrained(t *testing.T) {
	observing, err := podca.Constraints(compileRules(t, "  mode: observe\n  allowlist: [a.example]\n"), bot)
	if err != nil || !observing.Unconstrained || !strings.Contains(observing.Why, "observes") {
		t.Errorf("%+v, %v", observing, err)
	}
	var many []string
	for i := range 4000 {
		many = append(many, fmt.Sprintf("host-%d.tenants.example", i))
	}
	long, err := podca.Constraints(compile(t, strings.Join(many, ",")), bot)
	if err != nil || !long.Unconstrained || !strings.Contains(long.Why, "4000 hosts") {
		t.Errorf("%+v, %v", long, err)
	}
	if short := constraint(t, strings.Join(many[:2000], ",")); short.Unconstrained {
		t.Error("2000 hosts do not fit")
	}
}

func TestConstraintsAreStable(t *testing.T) {
	one, other := constraint(t, "b.example,a.example,10.0.0.0/8"), constraint(t, "10.0.0.0/8,A.example,b.example,x.b.example")
	if !bytes.Equal(one.DER, other.DER) {
		t.Error("the same hosts in another order and spelling have other bytes")
	}
	pod := link.Pod{Namespace: "support", UID: uid}
	a, err1 := podca.NewTemplate(pod, one)
	b, err2 := podca.NewTemplate(pod, other)
	if err1 != nil || err2 != nil || !same(a, b) {
		t.Errorf("%v %v", err1, err2)
	}
	pod.UID = "other"
	c, err := podca.NewTemplate(pod, one)
	if err != nil || same(a, c) {
		t.Errorf("two pods have one template: %v", err)
	}
	if _, err := podca.NewTemplate(link.Pod{}, one); err == nil {
		t.Error("a template for no pod")
	}
}

// TestWhatPolicyCouldAllowIsPermitted draws policies and hosts, and holds the
// constraints to what the compiled policy says of each host.
func TestWhatPolicyCouldAllowIsPermitted(t *testing.T) {
	r := newRoot(t, "support root")
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	labels := []string{"a", "b", "c0", "d_e", "f-g"}
	name := func(stars bool) string {
		parts := []string{"test"}
		for range 1 + rnd.IntN(3) {
			label := labels[rnd.IntN(len(labels))]
			if stars && rnd.IntN(4) == 0 {
				label = "*"
			}
			parts = append([]string{label}, parts...)
		}
		return strings.Join(parts, ".")
	}
	addr := func() netip.Addr {
		if rnd.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(3)), byte(rnd.IntN(2)), 1})
		}
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", rnd.IntN(3)))
	}
	for range 60 {
		var hosts []string
		for range 1 + rnd.IntN(4) {
			if rnd.IntN(4) == 0 {
				a := addr()
				prefix, err := a.Prefix(a.BitLen() / (1 + rnd.IntN(4)))
				if err != nil {
					t.Fatal(err)
				}
				hosts = append(hosts, prefix.String())
			} else {
				hosts = append(hosts, name(true))
			}
		}
		exact := !slices.ContainsFunc(hosts, func(h string) bool { return strings.Contains(h, "*") })
		set := compile(t, strings.Join(hosts, ","))
		view := set.For(bot)
		c, err := podca.Constraints(set, bot)
		if err != nil {
			t.Fatal(err)
		}
		ca := confine(t, r, c)
		for range 12 {
			host := name(false)
			if rnd.IntN(4) == 0 {
				host = addr().String()
			}
			authority, err := canon.ParseAuthority(bracketed(host), 443)
			if err != nil {
				t.Fatal(err)
			}
			possible, permitted := view.Host(authority).Possible, ca.permits(t, host)
			below := slices.ContainsFunc(hosts, func(h string) bool { return strings.HasSuffix(host, "."+h) })
			switch {
			case possible && !permitted:
				t.Fatalf("%q: the policy could allow %s, and its certificate would not verify", hosts, host)
			case exact && permitted && !possible && !below:
				t.Fatalf("%q: %s is permitted, and the policy could not allow it", hosts, host)
			}
		}
	}
}

func same(a, b link.Template) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.NameConstraints, b.NameConstraints) && a.Unconstrained == b.Unconstrained
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
