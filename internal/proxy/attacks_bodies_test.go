package proxy_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func sum(body string) string {
	h := sha256.Sum256([]byte(body))
	return hex.EncodeToString(h[:])
}

// endWrites ends what the client sends and leaves it able to read: close_notify
// in a tunnel, FIN at the proxy port.
func endWrites(t *testing.T, c *enginetest.Conn) {
	t.Helper()
	var err error
	switch conn := c.Conn.(type) {
	case *tls.Conn:
		err = conn.CloseWrite()
	case *net.TCPConn:
		err = conn.CloseWrite()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestS11BodyOfAnotherLength(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	long := strings.Repeat("a", 100_000)
	for _, w := range bothWays(e) {
		for i, row := range []struct {
			what, framing, sent, body string
		}{
			{"a small body that stops short", "Content-Length: 10", "abcd", "abcd"},
			{"a large body that stops short", "Content-Length: 200000", long, long},
			{"a body of which nothing comes", "Content-Length: 10", "", ""},
			{"chunks without the last", "Transfer-Encoding: chunked", "4\r\nabcd\r\n", "abcd"},
			{"a chunk that stops short", "Transfer-Encoding: chunked", "a\r\nabcd", "abcd"},
			{"a last chunk without its empty line", "Transfer-Encoding: chunked", "4\r\nabcd\r\n0\r\n", "abcd"},
		} {
			for _, gone := range []bool{false, true} {
				what := row.what + " " + w.name
				path := numbered(2 * i)
				if gone {
					what += ", the client gone"
					path = numbered(2*i + 1)
				}
				t.Run(what, func(t *testing.T) {
					c := w.dial(t)
					defer c.Close()
					c.Send(w.raw("POST {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n" + row.framing + "\r\n\r\n" + row.sent))
					if gone {
						_ = c.Close()
					} else {
						endWrites(t, c)
						if r := c.Reply("POST"); r.Status != 400 || r.Reason() != "client_aborted" {
							t.Errorf("got %d %q, want 400 client_aborted", r.Status, r.Reason())
						}
						c.WantClosed()
					}
					e.WantRecord(t, enginetest.Fields{
						"event": "egress_error", "phase": "complete", "host": w.host, "path": path, "reason": "client_aborted",
						"request_bytes": len(row.body), "request_sha256": sum(row.body),
					})
					w.wantCut(t, path)
				})
			}
		}
		t.Run("a body that is longer "+w.name, func(t *testing.T) {
			c := w.dial(t)
			s := w.sends(t, c, "POST", "POST {at}/longer HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc<surplus>\r\n\r\n"+smuggled)
			if string(s.Body) != "abc" {
				t.Errorf("the origin got the body %q", s.Body)
			}
			refused(t, "the surplus", c.Reply("GET"), 400, "bad_request_line")
			c.WantClosed()
			recorded(t, e, enginetest.Fields{"phase": "complete", "path": "/longer", "request_bytes": 3, "request_sha256": sum("abc")})
		})
	}
	e.NoRecord(t, enginetest.Fields{"path": "/smuggled"})
}

func TestS12BodiesWhereNoneIsExpected(t *testing.T) {
	e := attacked(t, enginetest.Options{Policy: `
- name: over-tls
  {{to "allowed.test"}}
  methods: [GET, HEAD, DELETE]
  paths: ["/open/**"]
- name: without-tls
  {{to "plain.test"}}
  methods: [GET, HEAD, DELETE]
  paths: ["/open/**"]
`})
	for _, w := range bothWays(e) {
		w.denies(t,
			// Without framing, the bytes are the next request: judged as such.
			denied{"a GET with a length nobody can read", "GET {at}/open/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\nabc", "bad_framing", 0},
			denied{"a DELETE the rule does not allow, and another expectation", "DELETE {at}/x HTTP/1.1\r\nHost: {host}\r\nExpect: body\r\nContent-Length: 3\r\n\r\nabc", "bad_expect", 417},
		)
		for _, method := range []string{"GET", "HEAD", "DELETE"} {
			t.Run(method+" "+w.name, func(t *testing.T) {
				c := w.dial(t)
				line := method + " {at}/open/" + method + " HTTP/1.1\r\nHost: {host}\r\n"
				s := w.sends(t, c, method, line+"Content-Length: 3\r\n\r\nabc")
				w.wantHead(t, s, method+" /open/"+method+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\n")
				if string(s.Body) != "abc" {
					t.Errorf("the origin got the body %q", s.Body)
				}
				if s = w.sends(t, c, method, line+"Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"); string(s.Body) != "xyz" {
					t.Errorf("the origin got the chunks %q", s.Body)
				}
				if s = w.sends(t, c, method, line+"\r\n"); s.BodyBytes != 0 || s.Count("Content-Length")+s.Count("Transfer-Encoding") != 0 {
					t.Errorf("a request without a body arrived as %q", s.Head)
				}
				w.waits(t, c, method, line+"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
				before := len(e.Origin(w.host).Requests())
				c.Send(w.raw(method + " {at}/closed HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc"))
				refused(t, "what the rule does not allow", c.Reply(method), 403, "path_not_allowed")
				if after := len(e.Origin(w.host).Requests()); after != before {
					t.Error("a denied request arrived")
				}
				w.sends(t, c, method, line+"\r\n")
			})
		}
		t.Run("bytes that nothing frames "+w.name, func(t *testing.T) {
			c := w.dial(t)
			w.sends(t, c, "GET", "GET {at}/open/bare HTTP/1.1\r\nHost: {host}\r\n\r\n{\"not\": \"framed\"}\r\n\r\n")
			refused(t, "the bytes", c.Reply("GET"), 400, "bad_request_line")
			c.WantClosed()
		})
	}
	e.NoRecord(t, enginetest.Fields{"path": "/smuggled"})
}

func TestS13Expect(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	const deletes = "DELETE {at}/x HTTP/1.1\r\nHost: {host}\r\n"
	for _, w := range bothWays(e) {
		// The body never comes: an engine that read it would not answer.
		w.denies(t,
			denied{"a denied request that waits with its length", deletes + "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n", "method_not_allowed", 403},
			denied{"a denied request that waits with its chunks", deletes + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", "method_not_allowed", 403},
			denied{"a denied request that waits, in capitals", deletes + "EXPECT: 100-CONTINUE\r\nContent-Length: 1000\r\n\r\n", "method_not_allowed", 403},
			denied{"a path with two readings that waits", "POST {at}/a/../x HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n", "ambiguous_path", 0},
			denied{"another expectation", head("POST", "Expect: 200-ok", "Content-Length: 3") + "abc", "bad_expect", 417},
			denied{"two expectations", head("POST", "Expect: 100-continue, 100-continue", "Content-Length: 3") + "abc", "bad_expect", 417},
			denied{"two Expect fields", head("POST", "Expect: 100-continue", "Expect: 100-continue", "Content-Length: 3") + "abc", "bad_expect", 417},
			denied{"an empty expectation", head("POST", "Expect:", "Content-Length: 3") + "abc", "bad_expect", 417},
			denied{"an expectation with parameters", head("POST", "Expect: 100-continue;q=1", "Content-Length: 3") + "abc", "bad_expect", 417},
		)
		w.waits(t, w.dial(t), "POST", head("POST", "Expect: 100-continue", "Content-Length: 3"))
	}
}

// waits sends an allowed head that expects 100 Continue for a body of 3 bytes,
// and the body when it got it.
func (w way) waits(t *testing.T, c *enginetest.Conn, method, head string) {
	t.Helper()
	before := len(w.e.Origin(w.host).Requests())
	c.Send(w.raw(head))
	if r := c.Reply(method); r.Status != 100 {
		t.Fatalf("an allowed request that waits got %d %q", r.Status, r.Reason())
	}
	c.Send("abc")
	if r := c.Reply(method); r.Status != 200 {
		t.Fatalf("with its body it got %d %q", r.Status, r.Reason())
	}
	seen := w.e.Origin(w.host).Requests()[before:]
	if len(seen) != 1 || string(seen[0].Body) != "abc" || seen[0].Get("Expect") != "100-continue" {
		t.Errorf("the origin saw %q", seen)
	}
}

func TestS14PipelinedRequestsAreJudgedOneByOne(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	get := func(path string) string { return "GET {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n\r\n" }
	const (
		deny = "DELETE {at}/denied HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc"
		post = "POST {at}/post HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
		bad  = "GET {at}/bad HTTP/1.1\r\nHost: {host}\r\nX : y\r\n\r\n"
	)
	for _, w := range bothWays(e) {
		for _, row := range []struct {
			what, raw string
			answers   []int
			arrived   []string
			closed    bool
		}{
			{"two allowed", get("/1") + get("/2"), []int{200, 200}, []string{"GET /1", "GET /2"}, false},
			{"an allowed behind a policy's denial", deny + get("/2"), []int{403, 200}, []string{"GET /2"}, false},
			{"a denied behind an allowed", get("/1") + deny, []int{200, 403}, []string{"GET /1"}, false},
			{"a denied between two allowed", get("/1") + deny + get("/3"), []int{200, 403, 200}, []string{"GET /1", "GET /3"}, false},
			{"an allowed behind chunks", post + get("/2"), []int{200, 200}, []string{"POST /post", "GET /2"}, false},
			{"an allowed behind what cannot be read", get("/1") + bad + get("/3"), []int{200, 400}, []string{"GET /1"}, true},
			{"another host behind an allowed", get("/1") + "GET {at}/2 HTTP/1.1\r\nHost: denied.test\r\n\r\n" + get("/3"), []int{200, 421}, []string{"GET /1"}, true},
			{"an allowed behind one that closes", "GET {at}/1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n" + get("/2"), []int{200}, []string{"GET /1"}, true},
			{"a request in a length of nothing", "POST {at}/1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n" + get("/2"), []int{200, 200}, []string{"POST /1", "GET /2"}, false},
			{"a request that is a body", "POST {at}/1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: " + strconv.Itoa(len(w.raw(get("/2")))) + "\r\n\r\n" + get("/2"), []int{200}, []string{"POST /1"}, false},
		} {
			t.Run(row.what+" "+w.name, func(t *testing.T) {
				before := len(e.Origin(w.host).Requests())
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw(row.raw))
				for i, want := range row.answers {
					if r := c.Reply("GET"); r.Status != want {
						t.Errorf("answer %d is %d %q, want %d", i+1, r.Status, r.Reason(), want)
					}
				}
				if row.closed {
					c.WantClosed()
				} else {
					w.sends(t, c, "GET", get("/last"))
					row.arrived = append(row.arrived, "GET /last")
				}
				if got := targets(e.Origin(w.host).Requests()[before:]); strings.Join(got, " ") != strings.Join(row.arrived, " ") {
					t.Errorf("the origin saw %q, want %q", got, row.arrived)
				}
			})
		}
	}
	untouched(t, e, "denied.test")
}

func TestS16FieldsWithTwoReadings(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	rows := []denied{
		{"a NUL in a value", head("GET", "X: a\x00b"), "bad_header", 0},
		{"a NUL in a name", head("GET", "X\x00Y: a"), "bad_header", 0},
		{"a CR in a value", head("GET", "X: a\rY: b"), "bad_header", 0},
		{"a VT in a value", head("GET", "X: a\vb"), "bad_header", 0},
		{"a VT around a value", head("GET", "X:\va"), "bad_header", 0},
		{"an FF in a value", head("GET", "X: a\fb"), "bad_header", 0},
		{"a DEL in a value", head("GET", "X: a\x7fb"), "bad_header", 0},
		{"an ESC in a value", head("GET", "X: \x1b[2J"), "bad_header", 0},
		{"a space before the colon", head("GET", "X : a"), "bad_header", 0},
		{"a tab before the colon", head("GET", "X\t: a"), "bad_header", 0},
		{"a space before the colon of a length", head("POST", "Content-Length : 3") + "abc", "bad_header", 0},
		{"a leading space", "GET {at}/x HTTP/1.1\r\n X: a\r\nHost: {host}\r\n\r\n", "bad_header", 0},
		{"an empty name", head("GET", ": a"), "bad_header", 0},
		{"no colon", head("GET", "Just a line"), "bad_header", 0},
		{"a name alone", head("GET", "Name"), "bad_header", 0},
		{"a space in a name", head("GET", "X Y: a"), "bad_header", 0},
		{"a name that is quoted", head("GET", "\"X\": a"), "bad_header", 0},
		{"a name beyond ASCII", head("GET", "Xé: a"), "bad_header", 0},
		{"a slash in a name", head("GET", "X/Y: a"), "bad_header", 0},
		{"two hosts", head("GET", "Host: {host}"), "bad_header", 0},
		{"no host", "GET {at}/x HTTP/1.1\r\nX: a\r\n\r\n", "bad_header", 0},
		{"two kinds of content", head("POST", "Content-Type: text/plain", "Content-Type: application/json", "Content-Length: 0"), "bad_header", 0},
		{"two authorizations", head("GET", "Authorization: a", "Authorization: b"), "bad_header", 0},
		{"an authorization dropped by Connection", head("GET", "Connection: Authorization", "Authorization: a"), "bad_header", 0},
		{"a host for CGI", head("GET", "Content_Type: text/plain"), "bad_header", 0},
		{"two spaces in the request line", "GET  {at}/x HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
		{"a tab in the request line", "GET\t{at}/x HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
		{"a NUL in the method", "G\x00ET {at}/x HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
		{"no version", "GET {at}/x\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
		{"a version of 1.2", "GET {at}/x HTTP/1.2\r\nHost: {host}\r\n\r\n", "bad_request_line", 505},
		{"a version of 2.0", "GET {at}/x HTTP/2.0\r\nHost: {host}\r\n\r\n", "bad_request_line", 505},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_request_line", 505},
		{"a version of 01.1", "GET {at}/x HTTP/01.1\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
		{"a method in lower case", "get {at}/x HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_method", 0},
	}
	for _, w := range bothWays(e) {
		w.denies(t, rows...)
		s := w.sends(t, w.dial(t), "GET", head("GET", "X-Tab: a\tb", "X-High: caf\xc3\xa9", "X-Empty:", "X-Padded: \t a \t"))
		w.wantHead(t, s, "GET /x HTTP/1.1\r\nHost: {host}\r\nX-Tab: a\tb\r\nX-High: caf\xc3\xa9\r\nX-Empty: \r\nX-Padded: a\r\n\r\n")
	}
}

func TestS18Trailers(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	const chunks = " HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
	for _, w := range bothWays(e) {
		for i, trailer := range []string{
			"Content-Length: 3", "content-length: 0", "Content_Length: 3", "Transfer-Encoding: chunked", "Host: denied.test",
			"Authorization: Bearer x", "Cookie: a=b", "Set-Cookie: a=b", "Content-Type: text/plain", "Content-Encoding: gzip",
			"Content-Range: bytes 0-1/2", "Connection: close", "Trailer: X", "Expect: 100-continue", "Range: bytes=0-1", "TE: trailers",
			"Proxy-Authorization: x", "If-Match: *", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: denied.test", "Forwarded: host=denied.test",
			"X-HTTP-Method-Override: DELETE", "X_Method_Override: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Host: denied.test",
			"X : a", " X: a", "X: a\n Y: b", "X: a\x00b", ": a", "no colon",
		} {
			t.Run(trailer+" "+w.name, func(t *testing.T) {
				path := numbered(i)
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw("POST {at}" + path + chunks + trailer + "\r\n\r\n" + smuggled))
				r := c.Reply("POST")
				if refused(t, trailer, r, 400, "bad_trailer"); t.Failed() {
					return
				}
				c.WantClosed()
				recorded(t, e, enginetest.Fields{"event": "egress_denied", "phase": "complete", "path": path, "host": w.host, "reason": "bad_trailer", "request_bytes": 3})
				w.wantCut(t, path)
			})
		}
		s := w.sends(t, w.dial(t), "POST", "POST {at}/good"+chunks+"X-Checksum: 1\r\nServer-Timing: a\r\n\r\n")
		if len(s.Trailers) != 2 || s.Trailers[0] != (enginetest.Field{Name: "X-Checksum", Value: "1"}) {
			t.Errorf("%s: the origin got the trailers %q", w.name, s.Trailers)
		}
	}
	e.NoRecord(t, enginetest.Fields{"path": "/smuggled"})
}

// Trailers of names that a condition looks at, of the rule that allows or of another
// for the host: an origin that merges them would see another value than was judged.
func TestS18TrailersThatAConditionTests(t *testing.T) {
	e := attacked(t, enginetest.Options{Policy: `
- name: named
  {{to "allowed.test"}}
  when: 'request.headers["x-tier"].exists(v, v == "free") || has(request.headers.x_plan) || "x-other" in request.headers'
- name: after
  {{to "allowed.test"}}
  methods: [GET]
- name: denied
  action: deny
  hosts: [allowed.test]
  ports: [{{port "allowed.test"}}]
  when: '"x-danger" in request.headers'
- name: any
  {{to "plain.test"}}
  when: '!request.headers.exists(name, name.startsWith("x-root"))'
`})
	const chunks = "Transfer-Encoding: chunked\r\nX-Tier: free\r\n\r\n3\r\nabc\r\n0\r\n"
	ways := bothWays(e)
	for i, row := range []struct {
		w       way
		trailer string
		passes  bool
	}{
		{ways[0], "X-Tier: paid", false},
		{ways[0], "X_TIER: paid", false},
		{ways[0], "X-Plan: 1", false},
		{ways[0], "X-Other: 1", false},
		{ways[0], "x-danger: 1", false},
		{ways[0], "X-Checksum: 1", true},
		{ways[1], "X-Root: 1", false},
		{ways[1], "X-Checksum: 1", false},
	} {
		t.Run(row.trailer+" "+row.w.name, func(t *testing.T) {
			path := numbered(i)
			c := row.w.dial(t)
			defer c.Close()
			c.Send(row.w.raw("POST {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n" + chunks + row.trailer + "\r\n\r\n"))
			r := c.Reply("POST")
			if row.passes {
				if r.Status != 200 {
					t.Errorf("%d %s", r.Status, r.Reason())
				}
				return
			}
			if refused(t, row.trailer, r, 400, "bad_trailer"); t.Failed() {
				return
			}
			row.w.wantCut(t, path)
		})
	}
}
