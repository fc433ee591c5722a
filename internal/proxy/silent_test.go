package proxy_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

func dialFrom(t *testing.T, addr string, last byte) net.Conn {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestR07APrincipalHasItsShareOfConnectionsFromAllItsAddresses(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{Connections: 16},
		Proxy: func(c *proxy.Config) {
			c.Identify = func(f intake.Flow) (identity.Principal, error) {
				if f.Client.Addr().String() == "127.0.0.1" {
					return identity.Principal{AgentIdentity: "quiet"}, nil
				}
				return identity.Principal{AgentIdentity: "loud"}, nil
			}
		},
	})
	connect := func(last byte) (net.Conn, string) {
		c := dialFrom(t, e.Addr, last)
		host := e.Authority("allowed.test")
		_, _ = c.Write([]byte("CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"))
		line := make([]byte, len("HTTP/1.1 200"))
		if _, err := c.Read(line); err != nil {
			t.Fatal(err)
		}
		return c, string(line)
	}
	first, line := connect(2)
	for last := byte(3); last <= 5 && line == "HTTP/1.1 200"; last++ {
		_, line = connect(last)
	}
	if line != "HTTP/1.1 200" {
		t.Fatalf("a connection within the share: %s", line)
	}
	if _, line = connect(6); line != "HTTP/1.1 503" {
		t.Errorf("a fifth pod's connection: %s", line)
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "too_many_connections", "agent_identity": "loud"})
	e.RawTunnel(t, "allowed.test", nil).WantOpen("allowed.test", "/quiet")
	_ = first.Close()
	if !enginetest.Eventually(func() bool { _, line := connect(7); return line == "HTTP/1.1 200" }) {
		t.Error("a place that became free is not given again")
	}
}

// Who never says anything is not waited for like who has.
func TestR01AConnectionThatHasCarriedNothingEndsSoon(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{Head: time.Second},
		Policy: "- name: all\n  {{to \"plain.test\"}}\n",
		Hosts:  map[string]enginetest.Host{"plain.test": {Plain: true}},
	})
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
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	kept := e.RawProxy(t)
	ask := func() {
		host := e.Authority("plain.test")
		kept.Send("GET http://" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if r := kept.Reply("GET"); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Reason())
		}
	}
	ask()
	for what, addr := range map[string]string{"the proxy port": e.Addr, "the port that speaks TLS": ln.Addr().String()} {
		if n, err := dialFrom(t, addr, 1).Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s sent something", what)
		} else if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // Read's own
			t.Errorf("%s waits on", what)
		}
	}
	ask() // it has been idle for longer than they were
}
