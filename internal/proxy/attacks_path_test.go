package proxy_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/url"
	"testing"

	"golang.org/x/net/http2"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// get is a request for a target that stands in the request line as it is.
func get(target string) string { return "GET {at}" + target + " HTTP/1.1\r\nHost: {host}\r\n\r\n" }

// bad is a row for each target.
func bad(reason string, paths ...string) []denied {
	var rows []denied
	for _, p := range paths {
		rows = append(rows, denied{fmt.Sprintf("%.40q", p), get(p), reason, 0})
	}
	return rows
}

// deniesH2 asks for each path over HTTP/2, where it comes in :path as it is.
// The stream is refused and the connection goes on. What Go's server cannot
// parse as a URL it resets by itself, before there is a request to record.
func deniesH2(t *testing.T, e *enginetest.Engine, reason string, paths ...string) {
	t.Helper()
	of := enginetest.Fields{"event": "egress_denied", "reason": reason, "alpn": "h2"}
	c := dialH2(t, e, "allowed.test")
	defer c.Close()
	for _, path := range paths {
		before := len(e.Find(t, of))
		a := c.answer(c.get(e.Authority("allowed.test"), path))
		if _, err := url.ParseRequestURI(path); err != nil && a.Reset == http2.ErrCodeProtocol {
			continue
		}
		if a.Status != 400 || a.Fields["x-aegrail-reason"] != reason {
			t.Errorf("%q over HTTP/2: %s; want 400 %q", path, a, reason)
		}
		if n := len(e.Find(t, of)); n != before+1 {
			t.Errorf("%q over HTTP/2: %d records with %s, want one more than %d", path, n, of, before)
		}
	}
	nothingArrived(t, e, "allowed.test")
}

// everyWay denies paths that HTTP/2 can carry as well.
func everyWay(t *testing.T, e *enginetest.Engine, reason string, paths ...string) {
	t.Helper()
	for _, w := range bothWays(e) {
		w.denies(t, bad(reason, paths...)...)
	}
	deniesH2(t, e, reason, paths...)
}

func TestP01DotSegments(t *testing.T) {
	everyWay(t, attacked(t, enginetest.Options{}), "ambiguous_path",
		"/.", "/..", "/./", "/../", "/a/.", "/a/..", "/a/./b", "/a/../b", "/a/b/../../../etc",
		"/%2e", "/%2E%2e", "/.%2e/b", "/a/%2e./b", "/a/%2e%2e/%2e%2e/b", "/a/..;/b", "/a/..;x=y/b", "/a/.;/b", "/a/..%3b/b", "/a/%2e%2e;/b",
		"/a/..%2fb", "/a%2f..%2fb", "/a%2f%2e%2e", "/a/..%20/b", "/..?x", "/a/..?x=/b",
	)
}

func TestP02EncodedSlash(t *testing.T) {
	everyWay(t, attacked(t, enginetest.Options{}), "ambiguous_path",
		"/a%2fb", "/a%2Fb", "/%2f", "/%2fetc", "/a/%2F", "/a%5cb", "/a%5C..%5Cb", "/%5c%5cshare", "/a\\b", "/\\\\share", "/a/..\\b",
	)
	t.Run("a rule that opts in", encodedSlashAllowed)
}

func encodedSlashAllowed(t *testing.T) {
	e := attacked(t, enginetest.Options{Policy: `
- name: packages
  {{to "allowed.test"}}
  methods: [GET]
  paths: ["/registry/*"]
  path: {encodedSlash: allow}
- name: without
  {{to "plain.test"}}
  paths: ["/registry/*"]
`})
	w := tunnelWay(e)
	s := w.sends(t, w.dial(t), "GET", get("/registry/@scope%2fname"))
	w.wantHead(t, s, "GET /registry/@scope%2Fname HTTP/1.1\r\nHost: {host}\r\n\r\n")
	recorded(t, e, enginetest.Fields{"phase": "complete", "rule": "packages", "path": "/registry/@scope%2Fname"})
	c := w.dial(t)
	c.Send(w.raw(get("/registry/@scope/name")))
	refused(t, "a slash for an encoded one", c.Reply("GET"), 403, "path_not_allowed")
	w.deniesMore(t, "ambiguous_path", "/registry%2fname", "/registry/a%5cb", "/registry/..%2f..", "/registry/%2f%2e%2e")
	plainWay(e).denies(t, bad("ambiguous_path", "/registry/a%2fb")...)
}

// deniesMore sends each path on a connection of its own and counts what arrived
// against what had before.
func (w way) deniesMore(t *testing.T, reason string, paths ...string) {
	t.Helper()
	before := len(w.e.Origin(w.host).Requests())
	for _, p := range paths {
		c := w.dial(t)
		c.Send(w.raw(get(p) + smuggled))
		refused(t, p, c.Reply("GET"), 400, reason)
		c.WantClosed()
	}
	if after := len(w.e.Origin(w.host).Requests()); after != before {
		t.Errorf("%d of %q arrived", after-before, paths)
	}
}

func TestP03ControlBytes(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	var encoded []string
	for c := range 0x20 {
		encoded = append(encoded, fmt.Sprintf("/a%%%02xb", c))
	}
	encoded = append(encoded, "/a%7fb", "/a%0d%0aX:%20y", "/a%0D%0A%0D%0AGET%20/x", "/%00", "/a%00.png", "/a%c2%80b", "/a%c2%85")
	everyWay(t, e, "bad_path", encoded...)
	for _, w := range bothWays(e) {
		w.denies(t, bad("bad_request_line", "/a\x00b", "/a\x01b", "/a\x1fb", "/a\x7fb", "/a\tb", "/a b", "/a\vb")...)
		for _, p := range []string{"/a\x80b", "/caf\xc3\xa9", "/\xff", "/a\xc0\xafb"} {
			w.deniesAny(t, p)
		}
	}
	nothingArrived(t, e, "allowed.test", "plain.test")
}

// deniesAny is denies for a target that the line or the path may be blamed for.
func (w way) deniesAny(t *testing.T, target string) {
	t.Helper()
	c := w.dial(t)
	c.Send(w.raw(get(target) + smuggled))
	r := c.Reply("GET")
	if r.Status != 400 || r.Reason() != "bad_path" && r.Reason() != "bad_request_line" {
		t.Errorf("%q: %d %q", target, r.Status, r.Reason())
	}
	c.WantClosed()
	recorded(t, w.e, enginetest.Fields{"event": "egress_denied", "reason": r.Reason()})
}

func TestP04EmptySegmentsAndParameters(t *testing.T) {
	everyWay(t, attacked(t, enginetest.Options{}), "ambiguous_path", "/a//b", "/a//", "/a///b", "/;", "/a;b", "/a;x=y/b", "/a/;/b", "/a/b;jsessionid=1")
	e := attacked(t, enginetest.Options{})
	for _, w := range bothWays(e) {
		w.denies(t, bad("ambiguous_path", "//", "//a", "//denied.test/a")...)
	}
	t.Run("a rule that opts in", func(t *testing.T) {
		e := attacked(t, enginetest.Options{Policy: `
- name: both
  {{to "allowed.test"}}
  paths: ["/**"]
  path: {semicolon: allow, doubleSlash: allow}
- name: one
  {{to "plain.test"}}
  paths: ["/**"]
  path: {semicolon: allow}
`})
		w := tunnelWay(e)
		for _, p := range []string{"/a//b", "//a", "/a;b", "/a;x=y//b"} {
			if s := w.sends(t, w.dial(t), "GET", get(p)); s.Target != p {
				t.Errorf("%s arrived as %s", p, s.Target)
			}
		}
		w = plainWay(e)
		w.sends(t, w.dial(t), "GET", get("/a;b"))
		w.deniesMore(t, "ambiguous_path", "/a//b", "/a;x//b")
	})
}

func TestP05BrokenEncodings(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	everyWay(t, e, "bad_path",
		"/a%", "/a%2", "/a%zz", "/a%2g/b", "/a%%32e", "/a%u002e", "/a%-1",
		"/%c0%af", "/%c0%ae%c0%ae/b", "/%e0%80%af", "/%f0%80%80%af", "/%c1%9c", "/%80", "/%ff", "/%c3", "/%c3/%a9", "/%ed%a0%80", "/%f4%90%80%80", "/%f8%88%80%80%80",
	)
	everyWay(t, e, "ambiguous_path",
		"/%252e%252e/b", "/a%252fb", "/a%252Fb", "/a%255cb", "/a%253bb", "/a%2500", "/a%250d%250a", "/%25%32%65", "/a%25252e", "/a%25c0%25af",
	)
}

func TestP06TargetsThatAreNoPath(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	tunnel, plain := tunnelWay(e), plainWay(e)
	line := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: {host}\r\n\r\n" }
	both := func(reason string, targets ...string) {
		for _, target := range targets {
			row := denied{fmt.Sprintf("%q", target), line(target), reason, 0}
			tunnel.denies(t, row)
			plain.denies(t, row)
		}
	}
	both("bad_target", "*", "http:opaque", "https:opaque", "a", "a/b", "?x", "#", "mailto:a@b.test", "allowed.test/x", "javascript:x", "http:/x", "https://{host}/x")
	for _, p := range []string{"/a#b", "/#", "/a?b#c", "/#/../b"} {
		for _, w := range []way{tunnel, plain} {
			c := w.dial(t)
			c.Send(w.raw(get(p) + smuggled))
			if r := c.Reply("GET"); r.Status != 400 || r.Reason() == "" {
				t.Errorf("%s %s: %d %q", p, w.name, r.Status, r.Reason())
			}
			c.WantClosed()
		}
	}
	tunnel.denies(t,
		denied{"absolute-form in a tunnel", line("http://{host}/x"), "bad_target", 0},
		denied{"absolute-form for another host in a tunnel", line("https://denied.test/x"), "bad_target", 0},
		denied{"userinfo in a tunnel", line("https://user:secret@{host}/x"), "bad_target", 0},
		denied{"a star with a path", "OPTIONS */x HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_target", 0},
	)
	plain.denies(t,
		denied{"origin-form at the proxy port", line("/x"), "bad_target", 0},
		denied{"ftp", line("ftp://{host}/x"), "bad_target", 0},
		denied{"https without CONNECT", line("https://{host}/x"), "bad_target", 0},
		denied{"userinfo", line("http://user:secret@{host}/x"), "bad_host", 0},
		denied{"userinfo that looks like the host", line("http://{host}@denied.test/x"), "bad_host", 0},
		denied{"no host", line("http:///x"), "bad_host", 0},
		denied{"a Host that is another", "GET {at}/x HTTP/1.1\r\nHost: denied.test\r\n\r\n", "name_mismatch", 421},
		denied{"a Host with another port", "GET {at}/x HTTP/1.1\r\nHost: plain.test:81\r\n\r\n", "name_mismatch", 421},
		denied{"a fragment behind the host", line("http://{host}#x"), "bad_target", 0},
	)
	nothingArrived(t, e, "allowed.test", "plain.test", "denied.test")
	for _, r := range e.Records(t) {
		if bytes.Contains([]byte(r.Line), []byte("secret")) {
			t.Errorf("the log has a password: %s", r.Line)
		}
	}
	t.Run("the star of OPTIONS", func(t *testing.T) {
		e := attacked(t, enginetest.Options{Policy: "- name: all\n  {{to \"allowed.test\"}}\n  methods: [OPTIONS]\n"})
		w := tunnelWay(e)
		s := w.sends(t, w.dial(t), "OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n")
		w.wantHead(t, s, "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n")
	})
}

func TestP07Queries(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	everyWay(t, e, "bad_query", "/a?x=%zz", "/a?%", "/a?x=%2", "/a?x=%00", "/a?%00", "/a?x=%u0041", "/?x=1&y=%z0")
	for _, w := range bothWays(e) {
		w.denies(t, bad("bad_request_line", "/a?x=\x00", "/a?x=\x7f", "/a?x=a b", "/a?x=\t")...)
		c := w.dial(t)
		for _, q := range []string{
			"", "x=a;y=b", ";", "a=1&a=2", "a=1&&b", "%41=%62", "x=%c3%a9", "x=%C3%a9", "x=%ff%fe", "x=/../../etc", "x=%2e%2e%2f", "x=a+b%20c", "x=?y", "x[]=1&x[]=2", "x=%0d%0aY:z", "=", "&",
		} {
			s := w.sends(t, c, "GET", get("/a?"+q))
			w.wantHead(t, s, "GET /a?"+q+" HTTP/1.1\r\nHost: {host}\r\n\r\n")
		}
	}
	client := e.ClientH2(t)
	for _, q := range []string{"x=a;y=b", "x=%c3%a9", "x=%ff", "x=1&x=2"} {
		if r := e.Do(t, client, "GET", "allowed.test", "/h2?"+q, ""); r.Status != 200 {
			t.Errorf("%s over HTTP/2: %d %q", q, r.Status, r.Reason())
			continue
		}
		seen := e.Origin("allowed.test").Requests()
		if got := seen[len(seen)-1].Target; got != "/h2?"+q {
			t.Errorf("over HTTP/2, %q arrived as %q", q, got)
		}
	}
}

// TestP08OneCanonicalPath sends paths made of pieces that mean something to
// somebody. What is refused is refused by both readers; what is sent is what
// canon makes of it, which canon leaves alone, and what the origin's parser
// reads is what was judged.
func TestP08OneCanonicalPath(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	pieces := []string{
		"/", "a", "b", ".", "..", "%2e", "%2E", "%2f", "%5c", "%41", "%7e", "~", "%3a", ":", "@", "%40", "+", "%20", "%25", "%252e", ";", "%3b", "%c3%a9", "%C3%A9", "%zz", "%", "-", "_", "!", "'", "(", ")", "*", ",", "=", "&", "$", "%26",
	}
	random := rand.New(rand.NewPCG(8, 8))
	w := tunnelWay(e)
	c := w.dial(t)
	sent, refusals := 0, 0
	for range 300 {
		path := "/"
		for range 1 + random.IntN(5) {
			path += pieces[random.IntN(len(pieces))]
		}
		want, quirks, err := canon.AppendPath(nil, []byte(path))
		if err != nil || quirks != 0 {
			if refusals++; refusals > 60 {
				continue // each takes a connection
			}
			d := w.dial(t)
			d.Send(w.raw(get(path)))
			if r := d.Reply("GET"); r.Status != 400 {
				t.Errorf("%s: %d %q, canon refuses it", path, r.Status, r.Reason())
			}
			_ = d.Close()
			continue
		}
		sent++
		if again, _, err := canon.AppendPath(nil, want); err != nil || !bytes.Equal(again, want) {
			t.Errorf("%s becomes %s, and that %s, %v", path, want, again, err)
		}
		s := w.sends(t, c, "GET", get(path))
		u, err := url.ParseRequestURI(s.Target)
		if s.Target != string(want) || err != nil || u.Path != string(canon.AppendDecoded(nil, want)) || u.RawQuery != "" {
			t.Errorf("%s: judged as %s, sent as %s, read as %q (%v)", path, want, s.Target, u.Path, err)
		}
		recorded(t, e, enginetest.Fields{"phase": "complete", "path": s.Target})
	}
	if sent < 40 || refusals < 40 {
		t.Errorf("%d were sent and %d refused: the pieces are no good", sent, refusals)
	}
}
