package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// raw is an engine with one raw origin and a connection to it.
func raw(t *testing.T, h enginetest.Host) (*enginetest.Engine, *enginetest.Conn) {
	t.Helper()
	e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": h}})
	return e, e.RawTunnel(t, "allowed.test", nil)
}

// line is a request head without its end.
func line(e *enginetest.Engine, method, path string, fields ...string) string {
	head := method + " " + path + " HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\n"
	for _, f := range fields {
		head += f + "\r\n"
	}
	return head
}

// byHand reads a response with a length byte for byte: net/http takes
// Connection: close out of what it returns.
func byHand(t *testing.T, c *enginetest.Conn) (status int, head, body string) {
	t.Helper()
	one := make([]byte, 1)
	for !strings.HasSuffix(head, "\r\n\r\n") {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("reading a head: %v after %q", err, head)
		}
		head += string(one)
	}
	_, _ = fmt.Sscanf(head, "HTTP/1.1 %d", &status)
	if _, length, ok := strings.Cut(head, "Content-Length: "); ok {
		n := 0
		_, _ = fmt.Sscan(length, &n)
		all := make([]byte, n)
		if _, err := io.ReadFull(c, all); err != nil {
			t.Fatalf("reading a body: %v", err)
		}
		body = string(all)
	}
	return status, head, body
}

// wantClosing fails the test unless the next answer is this one and says that
// it is the connection's last.
func wantClosing(t *testing.T, what string, c *enginetest.Conn, want int, wantBody string) {
	t.Helper()
	status, head, body := byHand(t, c)
	if status != want || wantBody != "" && body != wantBody || !strings.Contains(head, "\r\nConnection: close\r\n") {
		t.Errorf("%s: %d %q, want %d %q and Connection: close\n%s", what, status, body, want, wantBody, head)
	}
	c.WantClosed()
}

// wantStatus reads a response, interim ones included.
func wantStatus(t *testing.T, what string, c *enginetest.Conn, want int) *enginetest.Reply {
	t.Helper()
	r := c.Reply("POST")
	if r.Status != want {
		t.Fatalf("%s: %d %s %q, want %d", what, r.Status, r.Reason(), r.Body, want)
	}
	return r
}

func TestExpectContinue(t *testing.T) {
	expect := []string{"Expect: 100-continue", "Content-Length: 4"}
	t.Run("the origin says when", func(t *testing.T) {
		e, c := raw(t, enginetest.Host{Script: func(c *enginetest.OriginConn) {
			for {
				s, body, err := c.ReadHead()
				if err != nil {
					return
				}
				if s.Get("Expect") == "100-continue" {
					c.Printf("HTTP/1.1 100 Continue\r\n\r\n")
				}
				got := make([]byte, 4)
				for n := 0; n < 4; {
					m, err := body.Read(got[n:])
					if n += m; err != nil {
						return
					}
				}
				_, _ = body.Read(got[:0])
				if _, err := body.Read(make([]byte, 1)); err == nil {
					return
				}
				c.Reply(200, string(got))
			}
		}})
		for range 2 {
			c.Send(line(e, "POST", "/when", expect...) + "\r\n")
			wantStatus(t, "before the body", c, 100)
			c.Send("body")
			if r := wantStatus(t, "after the body", c, 200); r.Body != "body" {
				t.Errorf("%q", r.Body)
			}
		}
		e.WantRecords(t, 2, enginetest.Fields{"phase": "complete", "path": "/when", "request_sha256": sha256Hex("body")})
		if seen := e.Origin("allowed.test").Requests(); seen[0].Get("Expect") != "100-continue" || seen[1].Conn != 0 {
			t.Errorf("the origin saw %q", seen[0].Head)
		}
	})
	for _, status := range []int{200, 401, 417, 503} {
		t.Run(fmt.Sprintf("the origin answers %d at once", status), func(t *testing.T) {
			e, c := raw(t, enginetest.Host{Script: func(c *enginetest.OriginConn) {
				if _, _, err := c.ReadHead(); err == nil {
					c.Reply(status, "at once")
				}
				_, _ = c.Read(make([]byte, 1)) // until the engine closes
			}})
			c.Send(line(e, "POST", "/final", expect...) + "\r\n")
			wantClosing(t, "without the body", c, status, "at once")
			end := e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/final", "status_code": status, "request_bytes": 0})
			if end.Get("response_sha256") != sha256Hex("at once") {
				t.Errorf("the record: %s", end.Line)
			}
		})
	}
	t.Run("an origin that says nothing gets the body all the same", func(t *testing.T) {
		e := enginetest.Start(t, &enginetest.Options{
			Policy:   readPolicy,
			Upstream: func(c *upstream.Config) { c.ContinueTimeout = time.Millisecond },
			Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
				if _, body, err := c.ReadHead(); err == nil {
					got, _ := bufio.NewReader(body).Peek(4)
					c.Reply(200, string(got))
				}
			}}},
		})
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(line(e, "POST", "/silent", expect...) + "\r\n")
		wantStatus(t, "before the body", c, 100)
		c.Send("body")
		if r := wantStatus(t, "after the body", c, 200); r.Body != "body" {
			t.Errorf("%q", r.Body)
		}
	})
	t.Run("a client that does not wait", func(t *testing.T) {
		e, c := raw(t, enginetest.Host{})
		c.Send(line(e, "POST", "/eager", expect...) + "\r\nbody")
		if r := c.Reply("POST"); r.Status == 100 {
			wantStatus(t, "after the body", c, 200)
		} else if r.Status != 200 {
			t.Errorf("%d", r.Status)
		}
		c.WantOpen("allowed.test", "/next")
	})
	t.Run("a denial comes at once", func(t *testing.T) {
		e, c := raw(t, enginetest.Host{})
		c.Send(line(e, "DELETE", "/denied", expect...) + "\r\n")
		refused(t, "before the body", c.Reply("DELETE"), 403, "method_not_allowed")
		c.WantClosed()
		untouched(t, e, "allowed.test")
	})
	t.Run("another expectation", func(t *testing.T) {
		e, c := raw(t, enginetest.Host{})
		c.Send(line(e, "POST", "/other", "Expect: 200-ok", "Content-Length: 0") + "\r\n")
		refused(t, "200-ok", c.Reply("POST"), 417, "bad_expect")
		untouched(t, e, "allowed.test")
	})
	t.Run("over HTTP/2", func(t *testing.T) {
		e, _ := raw(t, enginetest.Host{})
		c := dialH2(t, e, "allowed.test")
		stream := c.open(false, ":method: POST", ":scheme: https", ":authority: "+e.Authority("allowed.test"), ":path: /h2", "expect: 100-continue", "content-length: 4")
		got := h2answer{Fields: map[string]string{}}
		c.read(stream, &got, func() bool { return len(got.Interim) > 0 })
		if fmt.Sprint(got.Interim) != "[100]" {
			t.Fatalf("before the body: %s %v", got, got.Interim)
		}
		c.data(stream, true, "body")
		if a := c.answer(stream); a.Status != 200 {
			t.Errorf("after the body: %s", a)
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/h2", "request_sha256": sha256Hex("body")})
	})
}

// TestEarlyAnswers has an origin that answers before the body has come, and
// closes.
func TestEarlyAnswers(t *testing.T) {
	e, c := raw(t, enginetest.Host{Script: func(c *enginetest.OriginConn) {
		if _, _, err := c.ReadHead(); err == nil {
			c.Printf("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much")
		}
		_, _ = c.Read(make([]byte, 1<<20))
	}})
	c.Send(line(e, "POST", "/early", "Content-Length: 1000000") + "\r\n" + strings.Repeat("x", 1000))
	wantClosing(t, "with a part of the body", c, 413, "too much")
	e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/early", "status_code": 413, "truncated": true, "response_sha256": sha256Hex("too much")})
}

// TestKeepAliveAfter sends one request after another on one connection, whatever
// became of the one before.
func TestKeepAliveAfter(t *testing.T) {
	e, c := raw(t, enginetest.Host{Answer: echoRaw})
	for _, row := range []struct {
		what, raw, method string
		status            int
	}{
		{"HEAD", line(e, "HEAD", "/head") + "\r\n", "HEAD", 200},
		{"204", line(e, "GET", "/none") + "\r\n", "GET", 204},
		{"304", line(e, "GET", "/same") + "\r\n", "GET", 304},
		{"a length of 0", line(e, "POST", "/empty", "Content-Length: 0") + "\r\n", "POST", 201},
		{"chunks and trailers", line(e, "POST", "/echo", "Transfer-Encoding: chunked", "Trailer: X-Sum") + "\r\n3\r\nab \r\n2;ext=1\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n", "POST", 200},
		{"a GET with a body", line(e, "GET", "/", "Content-Length: 2") + "\r\nhi", "GET", 200},
		{"a denial without a body", line(e, "DELETE", "/") + "\r\n", "DELETE", 403},
		{"a denial of PATCH", line(e, "PATCH", "/") + "\r\n", "PATCH", 403},
		{"a denial with a body", line(e, "DELETE", "/", "Content-Length: 10000") + "\r\n" + strings.Repeat("d", 10000), "DELETE", 403},
		{"a denial with chunks", line(e, "DELETE", "/", "Transfer-Encoding: chunked") + "\r\n3\r\nabc\r\n0\r\n\r\n", "DELETE", 403},
		{"a redirect", line(e, "GET", "/away") + "\r\n", "GET", 302},
	} {
		c.Send(row.raw)
		if r := c.Reply(row.method); r.Status != row.status || r.Close {
			t.Errorf("%s: %d %s, last %t", row.what, r.Status, r.Reason(), r.Close)
		}
		c.WantOpen("allowed.test", "/after")
	}
	e.WantRecords(t, 11, enginetest.Fields{"phase": "complete", "path": "/after"})
	if n := e.Origin("allowed.test").Connections(); n != 1 {
		t.Errorf("%d connections to the origin", n)
	}
	t.Run("not after a large body that was refused", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(line(e, "DELETE", "/", "Content-Length: 100000") + "\r\n" + strings.Repeat("d", 100000))
		wantClosing(t, "a denial", c, 403, "")
	})
	t.Run("not when the client says so", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(line(e, "GET", "/", "Connection: close") + "\r\n")
		wantClosing(t, "an answer", c, 200, "hello")
	})
}

func TestHTTP10Clients(t *testing.T) {
	e, _ := raw(t, enginetest.Host{Answer: echoRaw})
	old := func(method, path string, fields ...string) string {
		return strings.Replace(line(e, method, path, fields...), "HTTP/1.1", "HTTP/1.0", 1) + "\r\n"
	}
	t.Run("chunks become a body that ends with the connection", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(old("POST", "/echo", "Content-Length: 7", "Connection: keep-alive") + "one two")
		status, head, _ := byHand(t, c)
		body, err := io.ReadAll(c)
		if status != 200 || string(body) != "one two" || err != nil || strings.Contains(head, "Transfer-Encoding") || !strings.Contains(head, "Connection: close") {
			t.Errorf("%d %q %v\n%s", status, body, err, head)
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/echo", "response_sha256": sha256Hex("one two"), "truncated": nil})
	})
	t.Run("keep-alive where both can", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		for range 2 {
			c.Send(old("GET", "/", "Connection: keep-alive"))
			if r := c.Reply("GET"); r.Status != 200 || !strings.EqualFold(r.Header.Get("Connection"), "keep-alive") {
				t.Errorf("%d, Connection %q", r.Status, r.Header.Get("Connection"))
			}
		}
		c.Send(old("GET", "/"))
		if r := c.Reply("GET"); r.Status != 200 {
			t.Errorf("%d", r.Status)
		}
		c.WantClosed()
	})
	t.Run("no interim answer", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(old("GET", "/hints"))
		if r := c.Reply("GET"); r.Status != 200 || r.Body != "hello" {
			t.Errorf("%d %q", r.Status, r.Body)
		}
	})
	t.Run("chunks of a 1.0 client are refused", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		before := len(e.Origin("allowed.test").Requests())
		c.Send(old("POST", "/echo", "Transfer-Encoding: chunked") + "0\r\n\r\n")
		refused(t, "S8", c.Reply("POST"), 400, "bad_framing")
		if n := len(e.Origin("allowed.test").Requests()); n != before {
			t.Error("it arrived")
		}
	})
}

func TestHTTP10Origins(t *testing.T) {
	for _, row := range []struct {
		what, answer string
		conns        int
	}{
		{"a body to the close", "HTTP/1.0 200 OK\r\n\r\nold body", 2},
		{"a length and a close", "HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nold body", 2},
		{"keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 8\r\nConnection: keep-alive\r\n\r\nold body", 1},
	} {
		t.Run(row.what, func(t *testing.T) {
			e, c := raw(t, enginetest.Host{Script: func(c *enginetest.OriginConn) {
				for {
					if _, err := c.ReadRequest(); err != nil {
						return
					}
					c.Printf("%s", row.answer)
					if row.conns == 2 {
						return
					}
				}
			}})
			for range 2 { // the client's connection lasts, whatever the origin does
				c.Send(line(e, "GET", "/old") + "\r\n")
				if r := c.Reply("GET"); r.Status != 200 || r.Body != "old body" || r.Proto != "HTTP/1.1" {
					t.Errorf("%d %q in %s", r.Status, r.Body, r.Proto)
				}
			}
			e.WantRecords(t, 2, enginetest.Fields{"phase": "complete", "path": "/old", "upstream_proto": "HTTP/1.0", "response_sha256": sha256Hex("old body")})
			if n := e.Origin("allowed.test").Connections(); n != row.conns {
				t.Errorf("%d connections to the origin, want %d", n, row.conns)
			}
		})
	}
}

// TestHalfClose has a client that says all it has to say and then listens.
func TestHalfClose(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: both\n  {{to \"allowed.test\"}}\n- name: plain\n  {{to \"plain.test\"}}\n",
		Hosts:  map[string]enginetest.Host{"allowed.test": {}, "plain.test": {Plain: true}},
	})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send(line(e, "POST", "/half", "Content-Length: 4") + "\r\nbody")
	if err := c.Conn.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "TLS", c, 200)
	c.WantClosed()
	plain := e.RawProxy(t)
	host := e.Authority("plain.test")
	plain.Send("GET http://" + host + "/half HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	if err := plain.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "TCP", plain, 200)
	plain.WantClosed()
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/half", "truncated": nil})
}

func TestPlainHTTP(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy: "- name: plain\n  {{to \"plain.test\"}}\n  methods: [GET, POST]\n- name: other\n  {{to \"other.test\"}}\n- name: secure\n  {{to \"secure.test\"}}\n",
		Hosts: map[string]enginetest.Host{
			"plain.test": {Plain: true}, "other.test": {Plain: true}, "secure.test": {}, "denied.test": {Plain: true},
		},
	})
	absolute := func(method, host, path string, fields ...string) string {
		head := method + " http://" + e.Authority(host) + path + " HTTP/1.1\r\nHost: " + e.Authority(host) + "\r\n"
		return head + strings.Join(append(fields, "", ""), "\r\n")
	}
	t.Run("one connection carries requests to several hosts", func(t *testing.T) {
		c := e.RawProxy(t)
		c.Send(absolute("POST", "plain.test", "/a?b=c", "Content-Length: 2", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic c2VjcmV0") + "hi")
		wantStatus(t, "the first host", c, 200)
		c.Send(absolute("GET", "denied.test", "/"))
		refused(t, "a host that no rule names", c.Reply("GET"), 403, "not_in_allowlist")
		c.Send(absolute("DELETE", "plain.test", "/a"))
		refused(t, "a method that no rule names", c.Reply("DELETE"), 403, "method_not_allowed")
		c.Send(absolute("GET", "other.test", ""))
		wantStatus(t, "another host, no path", c, 200)
		first, second := e.Origin("plain.test").Requests(), e.Origin("other.test").Requests()
		if len(first) != 1 || first[0].Target != "/a?b=c" || first[0].Count("Proxy-Connection")+first[0].Count("Proxy-Authorization") > 0 {
			t.Errorf("the origin saw %q", first)
		}
		if len(second) != 1 || second[0].Target != "/" {
			t.Errorf("the other origin saw %q", second)
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "kind": "plain", "scheme": "http", "host": "plain.test", "path": "/a", "request_sha256": sha256Hex("hi"), "mitm": nil})
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "kind": "plain", "host": "denied.test", "reason": "not_in_allowlist"})
	})
	t.Run("https in absolute-form is not for this port", func(t *testing.T) {
		c := e.RawProxy(t)
		host := e.Authority("secure.test")
		c.Send("GET https://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if r := c.Reply("GET"); r.Status != 400 {
			t.Errorf("%d %s", r.Status, r.Reason())
		}
	})
	t.Run("http where the rule says https", func(t *testing.T) {
		c := e.RawProxy(t)
		c.Send(absolute("GET", "secure.test", "/"))
		refused(t, "http", c.Reply("GET"), 403, "scheme_not_allowed")
	})
	t.Run("Host unlike the target", func(t *testing.T) {
		c := e.RawProxy(t)
		c.Send("GET http://" + e.Authority("plain.test") + "/ HTTP/1.1\r\nHost: " + e.Authority("denied.test") + "\r\n\r\n")
		refused(t, "Host", c.Reply("GET"), 421, "name_mismatch")
		c.WantClosed()
	})
	t.Run("inside CONNECT", func(t *testing.T) {
		c := e.RawConnect(t, "plain.test")
		host := e.Authority("plain.test")
		for range 2 {
			c.Send("GET /inside HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			wantStatus(t, "in a tunnel", c, 200)
		}
		c.Send("GET /inside HTTP/1.1\r\nHost: " + e.Authority("other.test") + "\r\n\r\n")
		refused(t, "another host in the tunnel", c.Reply("GET"), 421, "name_mismatch")
		e.WantRecords(t, 2, enginetest.Fields{"phase": "complete", "kind": "connect", "scheme": "http", "host": "plain.test", "path": "/inside", "tls": nil})
	})
	untouched(t, e, "secure.test", "denied.test")
	notAsked(t, e, "secure.test", "denied.test")
}

func TestConnectOnPortsThatNoRuleNames(t *testing.T) {
	e := enginetest.Start(t, nil)
	for _, target := range []string{"allowed.test:443", "allowed.test:80", "allowed.test:22"} {
		c := e.RawProxy(t)
		c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
		refused(t, target, c.Reply("GET"), 403, "port_not_allowed")
		c.WantClosed()
	}
	e.WantRecords(t, 3, enginetest.Fields{"event": "egress_denied", "reason": "port_not_allowed", "host": "allowed.test", "kind": "connect"})
	untouched(t, e, "allowed.test")
	notAsked(t, e, "allowed.test")
	if n := e.Leaves.Stats().Mints; n != 0 {
		t.Errorf("%d leaves were minted", n)
	}
}
