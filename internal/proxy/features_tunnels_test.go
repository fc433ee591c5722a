package proxy_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

const passPolicy = "- name: pinned\n  {{to \"pinned.test\"}}\n  tls: passthrough\n- name: read\n  {{to \"allowed.test\"}}\n"

func TestPassthrough(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: passPolicy, Hosts: map[string]enginetest.Host{"pinned.test": {}, "allowed.test": {}}})
	strangers := &tls.Config{RootCAs: e.Root.Pool} // the origin's own authority: the client pins
	t.Run("the client sees the origin's certificate, and nobody its request", func(t *testing.T) {
		c := e.RawConnect(t, "pinned.test")
		if err := c.StartTLS("pinned.test", &enginetest.TunnelOptions{Config: strangers}); err != nil {
			t.Fatal(err)
		}
		if issuer := c.State().PeerCertificates[0].Issuer.CommonName; issuer != e.Root.Cert.Subject.CommonName {
			t.Errorf("the certificate is %s's", issuer)
		}
		c.Send("POST /secret HTTP/1.1\r\nHost: pinned.test\r\nContent-Length: 2\r\n\r\nhi")
		wantStatus(t, "in the tunnel", c, 200)
		_ = c.Close()
		end := e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "host": "pinned.test", "method": "CONNECT", "scheme": "tunnel", "rule": "pinned", "mitm": nil, "path": nil, "reason": nil})
		if end.Get("request_bytes") == "0" || end.Get("response_bytes") == "0" || end.Get("upstream_addr") != e.Origin("pinned.test").Addr.String() {
			t.Errorf("the record: %s", end.Line)
		}
		if strings.Contains(e.Dump(t), "secret") {
			t.Error("the log knows what was in the tunnel")
		}
	})
	before := e.Origin("pinned.test").Connections()
	for what, sni := range map[string]string{"another name": "allowed.test", "a part of the name": "test", "an address": "127.0.0.1"} {
		err := e.RawConnect(t, "pinned.test").StartTLS("pinned.test", &enginetest.TunnelOptions{ServerName: sni, Config: strangers})
		if err == nil {
			t.Errorf("%s in the ClientHello went through", what)
		}
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "name_mismatch", "host": "pinned.test", "sni": "allowed.test"})
	c := e.RawConnect(t, "pinned.test")
	c.Send("SSH-2.0-x\r\n")
	c.WantClosed()
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "not_tls", "host": "pinned.test"})
	if n := e.Origin("pinned.test").Connections(); n != before {
		t.Errorf("%d connections arrived for ClientHellos that were refused", n-before)
	}
	if n := e.Leaves.Stats().Mints; n != 0 {
		t.Errorf("%d leaves were minted for a host that is passed through", n)
	}
	inspected(t, e, "allowed.test")
}

// TestPassthroughIsCut takes the rule of an open tunnel away.
func TestPassthroughIsCut(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: passPolicy, Hosts: map[string]enginetest.Host{"pinned.test": {}, "allowed.test": {}}})
	c := e.RawConnect(t, "pinned.test")
	if err := c.StartTLS("pinned.test", &enginetest.TunnelOptions{Config: &tls.Config{RootCAs: e.Root.Pool}}); err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(t, passPolicy+"- name: more\n  {{to \"allowed.test\"}}\n  paths: [/more]\n")
	c.Send("GET / HTTP/1.1\r\nHost: pinned.test\r\n\r\n")
	wantStatus(t, "after a reload that keeps the rule", c, 200)
	e.SetPolicy(t, "- name: read\n  {{to \"allowed.test\"}}\n")
	if _, err := c.TryReply("GET"); err == nil {
		t.Error("the tunnel lives on")
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "host": "pinned.test", "reason": "policy_changed"})
}

const socketPolicy = "- name: socket\n  {{to \"allowed.test\"}}\n  paths: [/socket]\n  websocket: true\n- name: rest\n  {{to \"allowed.test\"}}\n  methods: [GET]\n  paths: [/plain]\n"

// opening is an opening handshake of RFC 6455 (section 1.3's own key).
func opening(e *enginetest.Engine, path string) string {
	return line(e, "GET", path, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==") + "\r\n"
}

// accepted is the answer to opening.
const accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// sockets is an engine whose origin answers an opening handshake with answer
// and then echoes.
func sockets(t *testing.T, answer string) *enginetest.Engine {
	t.Helper()
	return enginetest.Start(t, &enginetest.Options{
		Policy: socketPolicy,
		Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
			for {
				s, err := c.ReadRequest()
				if err != nil {
					return
				}
				if s.Get("Upgrade") == "" {
					c.Reply(200, "plain")
					continue
				}
				c.Printf("%s", answer)
				if strings.HasPrefix(answer, "HTTP/1.1 101") {
					_, _ = io.Copy(c.Conn, c)
					return
				}
			}
		}}},
	})
}

func TestWebSocketFrames(t *testing.T) {
	t.Run("both ways, digested, to the close", func(t *testing.T) {
		// Text "hi" and a close frame from the server, which the origin is made
		// to echo by sending them itself.
		frames := "\x81\x02hi\x88\x02\x03\xe8"
		e := enginetest.Start(t, &enginetest.Options{
			Policy: socketPolicy,
			Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
				if _, err := c.ReadRequest(); err == nil {
					c.Printf("%s", accepted+frames)
					_, _ = io.Copy(io.Discard, c)
				}
			}}},
		})
		c := e.RawTunnel(t, "allowed.test", nil)
		sent := "\x81\x82\x00\x00\x00\x00ho\x88\x82\x00\x00\x00\x00\x03\xe8"
		c.Send(opening(e, "/socket") + sent)
		if r := c.Reply("GET"); r.Status != 101 || r.Header.Get("Sec-Websocket-Accept") == "" {
			t.Fatalf("%d %v", r.Status, r.Header)
		}
		got := make([]byte, len(frames))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != frames {
			t.Errorf("%q, %v", got, err)
		}
		_ = c.Close()
		e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/socket", "status_code": 101,
			"request_sha256": sha256Hex(sent), "response_sha256": sha256Hex(frames), "request_bytes": len(sent), "truncated": nil})
		if got := string(e.Origin("allowed.test").AllBytes()); !strings.HasSuffix(got, sent) {
			t.Errorf("the origin saw %q", got)
		}
	})
	t.Run("a frame that is none", func(t *testing.T) {
		e := sockets(t, accepted)
		for what, bad := range map[string]string{
			"not masked": "\x81\x02hi", "a reserved opcode": "\x83\x82\x00\x00\x00\x00hi", "not HTTP's business": "DELETE /x HTTP/1.1\r\n",
		} {
			c := e.RawTunnel(t, "allowed.test", nil)
			c.Send(opening(e, "/socket"))
			if r := c.Reply("GET"); r.Status != 101 {
				t.Fatalf("%s: %d", what, r.Status)
			}
			c.Send(bad)
			got, _ := io.ReadAll(c)
			if string(got) != "\x88\x02\x03\xea" { // close 1002
				t.Errorf("%s: %q", what, got)
			}
		}
		e.WantRecords(t, 3, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/socket", "reason": "bad_frame"})
	})
	t.Run("an origin that does not upgrade", func(t *testing.T) {
		e := sockets(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(opening(e, "/socket"))
		if r := wantStatus(t, "the answer", c, 200); r.Body != "no" {
			t.Errorf("%q", r.Body)
		}
		c.Send(line(e, "DELETE", "/plain") + "\r\n") // still HTTP, and still judged
		refused(t, "the next request", c.Reply("DELETE"), 403, "method_not_allowed")
		e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/socket", "status_code": 200})
	})
	for what, answer := range map[string]string{
		"a wrong accept":           strings.Replace(accepted, "s3pP", "aaaa", 1),
		"no accept":                strings.Replace(accepted, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "", 1),
		"another protocol":         strings.Replace(accepted, "Upgrade: websocket", "Upgrade: tcp", 1),
		"an extension not offered": strings.Replace(accepted, "Connection:", "Sec-WebSocket-Extensions: x\r\nConnection:", 1),
	} {
		t.Run(what, func(t *testing.T) {
			e := sockets(t, answer)
			c := e.RawTunnel(t, "allowed.test", nil)
			c.Send(opening(e, "/socket"))
			if r := c.Reply("GET"); r.Status != 502 || r.Reason() == "" {
				t.Errorf("%d %s", r.Status, r.Reason())
			}
			e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/socket", "status_code": 502})
		})
	}
	t.Run("where no rule says so", func(t *testing.T) {
		e := sockets(t, accepted)
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(opening(e, "/plain"))
		refused(t, "the handshake", c.Reply("GET"), 403, "websocket_not_allowed")
		untouched(t, e, "allowed.test")
	})
	t.Run("its rule goes", func(t *testing.T) {
		e := sockets(t, accepted)
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(opening(e, "/socket"))
		if r := c.Reply("GET"); r.Status != 101 {
			t.Fatal(r.Status)
		}
		e.SetPolicy(t, strings.Replace(socketPolicy, "  websocket: true\n", "", 1))
		if rest, _ := io.ReadAll(c); len(rest) > 0 {
			t.Errorf("%q", rest)
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/socket", "reason": "policy_changed"})
	})
}

// connectProxy is a corporate proxy: it takes CONNECT and joins the sockets.
type connectProxy struct {
	url    *url.URL
	refuse bool

	mu    sync.Mutex
	asked []string // targets and credentials
}

func newConnectProxy(t *testing.T) *connectProxy {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	p := &connectProxy{url: &url.URL{Scheme: "http", Host: ln.Addr().String(), User: url.UserPassword("corp", "pw")}}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	return p
}

func (p *connectProxy) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.Method+" "+req.RequestURI+" "+req.Header.Get("Proxy-Authorization"))
	refuse := p.refuse
	p.mu.Unlock()
	if refuse {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	up, err := net.Dial("tcp", req.RequestURI)
	if err != nil {
		return
	}
	defer up.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(up, r)
		_ = up.Close()
	}()
	_, _ = io.Copy(c, up)
}

func (p *connectProxy) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// TestUpstreamProxy goes out through a corporate proxy, which is asked for the
// address that was judged.
func TestUpstreamProxy(t *testing.T) {
	p := newConnectProxy(t)
	e := enginetest.Start(t, &enginetest.Options{
		Policy:   "- name: all\n  {{to \"allowed.test\" \"inside.test\"}}\n- name: plain\n  {{to \"plain.test\"}}\n- name: pinned\n  {{to \"pinned.test\"}}\n  tls: passthrough\n- name: guarded\n  hosts: [guarded.test]\n  ports: [{{ports}}]\n",
		Hosts:    map[string]enginetest.Host{"allowed.test": {}, "plain.test": {Plain: true}, "pinned.test": {}, "inside.test": {}, "guarded.test": {}},
		Upstream: func(c *upstream.Config) { c.Proxy, c.ProxyBypass = p.url, []string{"inside.test"} },
	})
	addr := e.Origin("allowed.test").Addr
	for range 2 {
		if r := e.Do(t, e.ClientH2(t), "POST", "allowed.test", "/via", "body"); r.Status != 200 {
			t.Fatalf("%d %s %s", r.Status, r.Reason(), r.Body)
		}
	}
	const credentials = " Basic Y29ycDpwdw=="
	if got := p.seen(); len(got) != 1 || got[0] != "CONNECT "+addr.String()+credentials {
		t.Errorf("the proxy was asked %q, want one CONNECT to the judged address", got)
	}
	if got := string(e.Origin("allowed.test").AllBytes()); strings.Contains(got, "Proxy-") {
		t.Errorf("the origin got the proxy's credentials: %q", got)
	}
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/via", "request_sha256": sha256Hex("body")})
	refused(t, "an address inside", e.Do(t, e.Client(t), "GET", "guarded.test", "/", ""), 403, "address_denied")
	if r := e.Do(t, e.Client(t), "GET", "inside.test", "/", ""); r.Status != 200 {
		t.Errorf("a host that is bypassed: %d %s", r.Status, r.Reason())
	}
	if n := len(p.seen()); n != 1 {
		t.Errorf("the proxy was asked %q for a denied address or a bypassed host", p.seen())
	}
	if r := e.Do(t, e.Client(t), "GET", "plain.test", "/", ""); r.Status != 200 {
		t.Errorf("http: %d %s", r.Status, r.Reason())
	}
	c := e.RawConnect(t, "pinned.test")
	if err := c.StartTLS("pinned.test", &enginetest.TunnelOptions{Config: &tls.Config{RootCAs: e.Root.Pool}}); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if got := p.seen(); len(got) != 3 || got[1] != "CONNECT "+e.Origin("plain.test").Addr.String()+credentials {
		t.Errorf("the proxy was asked %q", got)
	}
	p.mu.Lock()
	p.refuse = true
	p.mu.Unlock()
	e.SetPolicy(t, "- name: all\n  {{to \"allowed.test\"}}\n") // retires the pool
	r := e.Do(t, e.Client(t), "GET", "allowed.test", "/refused", "")
	if r.Status != 502 || r.Reason() != "upstream_proxy_refused" || strings.Contains(r.Body, "pw") {
		t.Errorf("%d %s %s", r.Status, r.Reason(), r.Body)
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/refused", "reason": "upstream_proxy_refused"})
}
