//go:build netns

package proxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// redirected starts an engine whose transparent listener gets what is sent to
// the addresses that it returns, one of each family. Nobody listens there: the
// agent's choice of address is ignored, and the engine finds the origin itself.
func redirected(t *testing.T, o *enginetest.Options, host string) (*enginetest.Engine, []netip.AddrPort) {
	t.Helper()
	e := enginetest.Start(t, o)
	ln, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- e.Server.ServeTransparent(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	to := netip.MustParseAddrPort(ln.Addr().String()).Port()
	port := e.Origin(host).Addr.Port()
	dsts := []netip.AddrPort{
		netip.AddrPortFrom(netip.MustParseAddr("127.9.9.9"), port),
		netip.AddrPortFrom(netip.MustParseAddr("::1"), port),
	}
	for _, dst := range dsts {
		netns.Redirect(t, dst, to)
	}
	return e, dsts
}

func TestTransparentTLSIsJudgedByTheName(t *testing.T) {
	e, dsts := redirected(t, nil, "allowed.test")
	for _, dst := range dsts {
		for _, alpn := range []string{"http/1.1", "h2"} {
			t.Run(dst.String()+" "+alpn, func(t *testing.T) {
				client := &http.Client{Transport: &http.Transport{
					ForceAttemptHTTP2: alpn == "h2",
					TLSClientConfig:   &tls.Config{RootCAs: e.CAPool},
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return (&net.Dialer{}).DialContext(ctx, "tcp", dst.String())
					},
				}}
				defer client.CloseIdleConnections()
				resp, err := client.Get(e.URL("allowed.test", "/redirected"))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "allowed.test") {
					t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
				}
				e.WantRecord(t, enginetest.Fields{"kind": "transparent", "phase": "complete", "path": "/redirected", "status_code": "200"})
			})
		}
	}
}

func TestTransparentTLSWithoutARuleEndsWithAnAlertAndARecord(t *testing.T) {
	e, dsts := redirected(t, nil, "allowed.test")
	for name, reason := range map[string]string{"blocked.test": "not_in_allowlist", "": "no_sni"} {
		t.Run(name+reason, func(t *testing.T) {
			conn, err := tls.Dial("tcp", dsts[0].String(), &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // only the alert matters
			if err == nil {
				conn.Close()
				t.Fatal("the handshake went through")
			}
			if !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("the client saw %v", err)
			}
			e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "kind": "transparent", "reason": reason})
		})
	}
}

func TestTransparentPlainHTTPIsJudgedByHost(t *testing.T) {
	e, dsts := redirected(t, &enginetest.Options{
		Hosts:  map[string]enginetest.Host{"plain.test": {Plain: true}},
		Policy: "- name: read\n  {{to \"plain.test\"}}\n  methods: [GET]\n",
	}, "plain.test")
	ask := func(method, host string) (int, string) {
		conn, err := net.Dial("tcp", dsts[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, method+" /x HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || len(answer) < 12 {
			t.Fatalf("%q, %v", answer, err)
		}
		return int(answer[9]-'0')*100 + int(answer[10]-'0')*10 + int(answer[11]-'0'), string(answer)
	}
	if status, text := ask("GET", e.Authority("plain.test")); status != 200 {
		t.Errorf("an allowed GET: %s", text)
	}
	if status, text := ask("DELETE", e.Authority("plain.test")); status != 403 {
		t.Errorf("a denied DELETE: %s", text)
	}
	if status, text := ask("GET", "plain.test:1"); status != 421 {
		t.Errorf("another port in Host: %s", text)
	}
	e.WantRecord(t, enginetest.Fields{"kind": "transparent", "scheme": "http", "phase": "complete", "status_code": "200"})
}

func TestE04TheTransparentPortDialledByHand(t *testing.T) {
	e := enginetest.Start(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = e.Server.ServeTransparent(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "not_redirected"})
}
