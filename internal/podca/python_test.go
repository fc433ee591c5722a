//go:build python

package podca_test

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const pythonHandshake = `
import socket, ssl, sys
port, roots, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ctx = ssl.create_default_context(cafile=roots)
with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
    with ctx.wrap_socket(s, server_hostname=name) as tls:
        print(tls.version())
`

// TestK01PythonHonoursAPodsConstraints has Python shake hands with a server
// that presents what a pod's authority signed.
func TestK01PythonHonoursAPodsConstraints(t *testing.T) {
	r := newRoot(t, "support root")
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ hosts, allow, deny string }{
		{"api.example.com,*.b.example", "api.example.com,x.y.b.example", "example.com,evil.example,192.0.2.1"},
		{"10.0.0.0/8", "10.1.2.3", "11.0.0.1,example.com"},
		{"*", "anything.example,10.1.2.3", ""},
	} {
		ca := confine(t, r, constraint(t, row.hosts))
		for host := range strings.SplitSeq(row.allow, ",") {
			if out, err := ca.python(t, roots, host); err != nil {
				t.Errorf("%s: Python refuses %s: %s", row.hosts, host, out)
			}
		}
		for host := range strings.SplitSeq(row.deny, ",") {
			if row.deny == "" {
				continue
			}
			if out, err := ca.python(t, roots, host); err == nil || !strings.Contains(out, "permitted subtree violation") && !strings.Contains(out, "excluded subtree violation") {
				t.Errorf("%s: Python on %s: %v: %s", row.hosts, host, err, out)
			}
		}
	}
}

// python connects to a server with a leaf for host.
func (c confined) python(t *testing.T, roots, host string) (string, error) {
	t.Helper()
	leaf := c.leaf(t, host)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{leaf.Raw, c.ca.Raw}, PrivateKey: c.key.key, Leaf: leaf,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if nc, err := ln.Accept(); err == nil {
			_ = nc.(*tls.Conn).Handshake()
			nc.Close()
		}
	}()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "python3", "-c", pythonHandshake, port, roots, host).CombinedOutput()
	return string(out), err
}
