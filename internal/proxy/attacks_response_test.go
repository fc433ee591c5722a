package proxy_test

import (
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// answers is a host that answers each path of rows with its bytes, and any
// other as an honest origin does.
func answers(rows map[string]string, plain bool) enginetest.Host {
	return enginetest.Host{Plain: plain, Answer: func(c *enginetest.OriginConn, r enginetest.Seen) {
		if raw, ok := rows[r.Path()]; ok {
			c.Printf("%s", raw)
			return
		}
		c.Reply(200, "honest")
	}}
}

// last reads interim answers up to the final one, and counts them.
func last(c *enginetest.Conn, method string) (r *enginetest.Reply, interim int) {
	for {
		if r = c.Reply(method); r.Status >= 200 || r.Status == 101 {
			return r, interim
		}
		interim++
	}
}

const ok200 = "HTTP/1.1 200 OK\r\n"

func TestS19ResponsesThatCannotBeTrusted(t *testing.T) {
	const (
		whole  = ok200 + "Content-Length: 2\r\n\r\nok"
		poison = ok200 + "Content-Length: 8\r\n\r\npoisoned"
	)
	rows := []struct{ what, method, answer string }{
		{"a length and chunks", "GET", ok200 + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"two lengths", "GET", ok200 + "Content-Length: 2\r\nContent-Length: 5\r\n\r\nok"},
		{"one length twice", "GET", ok200 + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"},
		{"a length of 2,2", "GET", ok200 + "Content-Length: 2,2\r\n\r\nok"},
		{"a length of 0x2", "GET", ok200 + "Content-Length: 0x2\r\n\r\nok"},
		{"a negative length", "GET", ok200 + "Content-Length: -2\r\n\r\nok"},
		{"another coding", "GET", ok200 + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		{"two codings", "GET", ok200 + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"chunks on HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"endless interim answers", "GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 100) + whole},
		{"endless leave to send", "GET", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100) + whole},
		{"an interim answer with chunks", "GET", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + whole},
		{"a 101 nobody asked for", "GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"a bare 101", "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n" + whole},
		{"a body on a 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n" + poison},
		{"a length and a body on a 204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"},
		{"chunks on a 204", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"a body on a 304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok"},
		{"a body on a HEAD", "HEAD", whole},
		{"chunks on a HEAD", "HEAD", ok200 + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{"an answer behind the answer", "GET", whole + poison},
		{"an answer behind an empty answer", "GET", ok200 + "Content-Length: 0\r\n\r\n" + poison},
		{"a byte behind the answer", "GET", whole + "\n"},
		{"a bare LF in the head", "GET", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"},
		{"a folded field", "GET", ok200 + "X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"},
		{"a space before the colon", "GET", ok200 + "Content-Length : 2\r\n\r\nok"},
		{"a NUL in a field", "GET", ok200 + "X: a\x00b\r\nContent-Length: 2\r\n\r\nok"},
		{"a CR in a field", "GET", ok200 + "X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok"},
		{"a status of two digits", "GET", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"a status of 999", "GET", "HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"a status of 000", "GET", "HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"HTTP/2 on an HTTP/1.1 connection", "GET", "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"a banner of SSH", "GET", "SSH-2.0-OpenSSH_9.7\r\n"},
		{"a head without an end", "GET", ok200 + "X: " + strings.Repeat("x", 100_000) + "\r\n\r\n"},
	}
	raw := map[string]string{}
	for i, row := range rows {
		raw[numbered(i)] = row.answer
	}
	e := attacked(t, enginetest.Options{Hosts: map[string]enginetest.Host{
		"allowed.test": answers(raw, false), "plain.test": answers(raw, true), "denied.test": {},
	}})
	for _, w := range bothWays(e) {
		for i, row := range rows {
			t.Run(row.what+" "+w.name, func(t *testing.T) {
				path := numbered(i)
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw(row.method + " {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n\r\n"))
				r, interim := last(c, row.method)
				refused(t, row.what, r, 502, "bad_response")
				if strings.Contains(r.Body, "poisoned") || interim > 8 {
					t.Errorf("%d interim answers, and the body %q", interim, r.Body)
				}
				recorded(t, e, enginetest.Fields{
					"event": "egress_error", "phase": "complete", "path": path, "host": w.host, "method": row.method, "reason": "bad_response", "status_code": 502,
				})
				w.wantUnused(t, path)
			})
		}
	}
}

// wantUnused fails the test unless the connection on which path was asked for
// carries nothing else, and the next request is answered honestly.
func (w way) wantUnused(t *testing.T, path string) {
	t.Helper()
	c := w.dial(t)
	defer c.Close()
	o := w.e.Origin(w.host)
	c.Send(w.raw("GET {at}/honest HTTP/1.1\r\nHost: {host}\r\n\r\n"))
	if r := c.Reply("GET"); r.Status != 200 || r.Body != "honest" {
		t.Errorf("the next request got %d %q", r.Status, r.Body)
	}
	seen := o.Requests()
	next := seen[len(seen)-1]
	for _, s := range seen {
		if s.Path() == path && s.Conn == next.Conn {
			t.Errorf("the connection of %s was used again for %s", s, next)
		}
	}
}

// TestS19ResponsesThatGoWrongLater are those whose head is at the client
// already: what the client has must not look whole.
func TestS19ResponsesThatGoWrongLater(t *testing.T) {
	rows := []struct{ what, answer, reason string }{
		{"a body that stops short", ok200 + "Content-Length: 10\r\n\r\nabc", "upstream_truncated"},
		{"chunks without the last", ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "upstream_truncated"},
		{"a chunk size of 0x3", ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0x3\r\nabc\r\n0\r\n\r\n", "bad_chunk"},
		{"a chunk longer than its size", ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "bad_chunk"},
		{"a trailer that is a length", ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n", "bad_trailer"},
	}
	raw := map[string]string{"/surplus": ok200 + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + ok200 + "Content-Length: 8\r\n\r\npoisoned"}
	for i, row := range rows {
		raw[numbered(i)] = row.answer
	}
	host := func(plain bool) enginetest.Host {
		h := answers(raw, plain)
		answer := h.Answer
		h.Answer = func(c *enginetest.OriginConn, r enginetest.Seen) {
			answer(c, r)
			if strings.HasPrefix(r.Path(), "/row-") {
				_ = c.Close() // with a close_notify: what is missing is HTTP's end
			}
		}
		return h
	}
	e := attacked(t, enginetest.Options{Hosts: map[string]enginetest.Host{"allowed.test": host(false), "plain.test": host(true)}})
	for _, w := range bothWays(e) {
		for i, row := range rows {
			t.Run(row.what+" "+w.name, func(t *testing.T) {
				path := numbered(i)
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw("GET {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n\r\n"))
				r, err := c.TryReply("GET")
				if err == nil && r.Status != 502 {
					t.Errorf("the answer looks whole: %d %q", r.Status, r.Body)
				}
				recorded(t, e, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": path, "host": w.host, "reason": row.reason})
				w.wantUnused(t, path)
			})
		}
		t.Run("an answer behind chunks "+w.name, func(t *testing.T) {
			c := w.dial(t)
			c.Send(w.raw("GET {at}/surplus HTTP/1.1\r\nHost: {host}\r\n\r\n"))
			if r := c.Reply("GET"); r.Status != 200 || r.Body != "ok" {
				t.Errorf("got %d %q", r.Status, r.Body)
			}
			w.wantUnused(t, "/surplus")
		})
	}
}
