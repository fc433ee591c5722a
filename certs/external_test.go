//go:build openssl

// What other TLS stacks make of our certificates. Run with: go test -tags openssl ./certs (needs openssl and keytool).

package certs

import (
	"crypto/x509"
	"os/exec"
	"strings"
	"testing"
)

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

// TestK01OpenSSLHonoursTheConstraints verifies with OpenSSL what the constrained CA may sign and what a thief of its key signed.
// -x509_strict is what Python 3.13 and later verify with.
func TestK01OpenSSLHonoursTheConstraints(t *testing.T) {
	check := func(t *testing.T, a *Authority, leaf *x509.Certificate, host string) (string, error) {
		dir := t.TempDir()
		flag := "-verify_hostname"
		if len(leaf.IPAddresses) > 0 {
			flag = "-verify_ip"
		}
		return run(t, "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", "1778846400", flag, host,
			"-CAfile", write(t, dir, "root", a.RootsPEM()), "-untrusted", write(t, dir, "ca", certsPEM(a.cert)), write(t, dir, "leaf", certsPEM(leaf)))
	}
	for _, row := range []struct{ permit, allow, deny []string }{
		{[]string{"*.example.com"}, []string{"example.com", "a.b.example.com"}, []string{"example.org", "notexample.com", "192.0.2.1", "2001:db8::1"}},
		{[]string{"10.0.0.0/8"}, []string{"10.1.2.3"}, []string{"11.0.0.1", "2001:db8::1", "example.com"}},
		{nil, []string{"example.com", "10.1.2.3", "2001:db8::1"}, nil},
	} {
		a := constrained(t, row.permit...)
		for _, host := range row.allow {
			leaf, err := a.Mint(host, leafKey(t), noon)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := check(t, a, leaf.Leaf, host); err != nil {
				t.Errorf("%v: OpenSSL refuses %s: %s", row.permit, host, out)
			}
		}
		for _, host := range row.deny {
			if out, err := check(t, a, forced(t, a, host), host); err == nil || !strings.Contains(out, "subtree violation") {
				t.Errorf("%v: OpenSSL on %s: %s", row.permit, host, out)
			}
		}
	}
}

// TestJavaReadsTheTrustStore lists the store with keytool: one trusted entry for each certificate of the system.
func TestJavaReadsTheTrustStore(t *testing.T) {
	_, system, err := SystemBundle(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewEphemeral(noon)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := Bundle(system, a.RootsPEM())
	if err != nil {
		t.Fatal(err)
	}
	store, err := trust.PKCS12("changeit")
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "keytool", "-list", "-keystore", write(t, t.TempDir(), "trust.p12", store), "-storetype", "PKCS12", "-storepass", "changeit")
	if n := strings.Count(out, "trustedCertEntry"); err != nil || n != trust.Len() {
		t.Errorf("Java sees %d of %d certificates: %v\n%.500s", n, trust.Len(), err, out)
	}
}
