//go:build openssl

package podca_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func writePEM(t *testing.T, dir, name string, certs ...*x509.Certificate) string {
	t.Helper()
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestK01OpenSSLHonoursAPodsConstraints verifies with OpenSSL what a pod's
// authority may sign and what a thief of its key signed.
func TestK01OpenSSLHonoursAPodsConstraints(t *testing.T) {
	r := newRoot(t, "support root")
	for _, row := range []struct{ hosts, allow, deny string }{
		{"api.example.com,*.b.example", "api.example.com,x.y.b.example", "example.com,evil.example,192.0.2.1,2001:db8::1"},
		{"10.0.0.0/8", "10.1.2.3", "11.0.0.1,2001:db8::1,example.com"},
		{"*", "anything.example,10.1.2.3", ""},
	} {
		ca := confine(t, r, constraint(t, row.hosts))
		verify := func(host string) (string, error) {
			dir, flag := t.TempDir(), "-verify_hostname"
			leaf := ca.leaf(t, host)
			if len(leaf.IPAddresses) > 0 {
				flag = "-verify_ip"
			}
			out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-purpose", "sslserver", flag, host,
				"-CAfile", writePEM(t, dir, "root", r.cert), "-untrusted", writePEM(t, dir, "ca", ca.ca), writePEM(t, dir, "leaf", leaf)).CombinedOutput()
			return string(out), err
		}
		for host := range strings.SplitSeq(row.allow, ",") {
			if out, err := verify(host); err != nil {
				t.Errorf("%s: OpenSSL refuses %s: %s", row.hosts, host, out)
			}
		}
		for host := range strings.SplitSeq(row.deny, ",") {
			if out, err := verify(host); row.deny != "" && (err == nil || !strings.Contains(out, "subtree violation")) {
				t.Errorf("%s: OpenSSL on %s: %v: %s", row.hosts, host, err, out)
			}
		}
	}
}
