package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// counted is a listener that counts the writes of its connections.
type counted struct {
	net.Listener
	writes *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countedConn{c, l.writes}, nil
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A client that does not trust the port's own certificate is recorded too, also one
// that says so in the clear.
func TestAClientThatRejectsThePortsCertificateIsRecorded(t *testing.T) {
	e := enginetest.Start(t, nil)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- e.Server.ServeTLS(ctx, ln, &tls.Config{GetCertificate: func(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return e.Leaves.Leaf(chi.Context(), "proxy.test")
		}})
	}()
	for i, plain := range []bool{false, true} {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		w := &clearAlert{Conn: nc}
		cfg := &tls.Config{RootCAs: e.Root.Pool, ServerName: "proxy.test"}
		if plain {
			cfg.RootCAs = e.CAPool
			cfg.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
				w.end("\x15\x03\x03\x00\x02\x02\x30")
				return errors.New("not trusted")
			}
		}
		if err := tls.Client(w, cfg).Handshake(); err == nil {
			t.Fatal("the certificate is trusted")
		}
		e.WantRecords(t, i+1, enginetest.Fields{"event": "egress_error", "reason": "client_rejected_certificate"})
		_ = nc.Close()
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestBelowTLSOfThePortAPieceIsOneWrite downloads through a port that speaks TLS
// itself. A piece of 16 KiB that was encrypted once no longer fits one record.
func TestBelowTLSOfThePortAPieceIsOneWrite(t *testing.T) {
	const size = 1 << 20
	body := strings.Repeat("0123456789abcdef", size/16)
	answer := func(c *enginetest.OriginConn, _ enginetest.Seen) { c.Reply(200, body) }
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: both\n  {{to \"allowed.test\"}}\n- name: plain\n  {{to \"plain.test\"}}\n",
		Hosts:  map[string]enginetest.Host{"allowed.test": {Answer: answer}, "plain.test": {Plain: true, Answer: answer}},
	})
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	writes := new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- e.Server.ServeTLS(ctx, counted{ln, writes}, &tls.Config{
			GetCertificate: func(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return e.Leaves.Leaf(chi.Context(), "proxy.test")
			},
		})
	}()
	client := e.Client(t)
	transport := client.Transport.(*http.Transport)
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: "proxy.test"})
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, ln.Addr().String())
	}
	for _, host := range []string{"allowed.test", "plain.test"} {
		writes.Store(0)
		if r := e.Do(t, client, "GET", host, "/", ""); r.Status != 200 || r.Body != body {
			t.Errorf("%s: %d, %d bytes", host, r.Status, len(r.Body))
		}
		// A piece is a record of the origin's, of 16 KiB at most; the handshakes and the head come to a few.
		if n := writes.Load(); n > size/(16<<10)+16 {
			t.Errorf("%s: %d writes for %d KiB", host, n, size>>10)
		}
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
