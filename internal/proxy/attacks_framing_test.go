package proxy_test

import (
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func TestS01ContentLengthAndTransferEncoding(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, w := range bothWays(e) {
		w.denies(t,
			denied{"the length first", head("POST", "Content-Length: 5", "Transfer-Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
			denied{"the coding first", head("POST", "Transfer-Encoding: chunked", "Content-Length: 5") + "0\r\n\r\n", "bad_framing", 0},
			denied{"a length of nothing", head("POST", "Content-Length: 0", "Transfer-Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
			denied{"in capitals", head("POST", "CONTENT-LENGTH: 5", "TRANSFER-ENCODING: CHUNKED") + "0\r\n\r\n", "bad_framing", 0},
			denied{"on a GET", head("GET", "Content-Length: 5", "Transfer-Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
			denied{"the length dropped by Connection", head("POST", "Connection: Content-Length", "Content-Length: 5", "Transfer-Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
			denied{"the coding with an underscore", head("POST", "Content-Length: 5", "Transfer_Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
		)
	}
}

func TestS02ContentLengthTwice(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, w := range bothWays(e) {
		w.denies(t,
			denied{"two lengths", head("POST", "Content-Length: 3", "Content-Length: 4") + "abc", "bad_framing", 0},
			denied{"one length twice", head("POST", "Content-Length: 3", "Content-Length: 3") + "abc", "bad_framing", 0},
			denied{"nothing twice", head("POST", "Content-Length: 0", "Content-Length: 0"), "bad_framing", 0},
			denied{"in two spellings", head("POST", "Content-Length: 3", "content-length: 3") + "abc", "bad_framing", 0},
			denied{"with an underscore", head("POST", "Content-Length: 0", "Content_Length: 3") + "abc", "bad_framing", 0},
			denied{"with a field between", head("GET", "Content-Length: 0", "X-Between: 1", "Content-Length: 3") + "abc", "bad_framing", 0},
		)
	}
}

func TestS03ContentLengthSpellings(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	var rows []denied
	for _, value := range []string{
		"010", "03", "00", "+3", "-3", "3,3", "3, 3", "", "0x10", "3.0", "3e0", "1_0", "3;", "three", "3 3", "\"3\"", "３",
		"18446744073709551619", "99999999999999999999", "9223372036854775808", "-0",
	} {
		rows = append(rows, denied{"a length of " + value, head("POST", "Content-Length: "+value) + "abc", "bad_framing", 0})
	}
	for _, w := range bothWays(e) {
		w.denies(t, rows...)
	}
}

func TestS04BareLineEnds(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, w := range bothWays(e) {
		w.denies(t,
			denied{"LF after the request line", "GET {at}/x HTTP/1.1\nHost: {host}\r\n\r\n", "bad_header", 0},
			denied{"LF after a field", "GET {at}/x HTTP/1.1\r\nHost: {host}\nX: y\r\n\r\n", "bad_header", 0},
			denied{"LF within a value", head("GET", "X: a\nTransfer-Encoding: chunked"), "bad_header", 0},
			denied{"LF as the empty line", "GET {at}/x HTTP/1.1\r\nHost: {host}\r\n\n", "bad_header", 0},
			denied{"LF alone throughout", "GET {at}/x HTTP/1.1\nHost: {host}\n\n", "bad_header", 0},
			denied{"CR in the target", "GET {at}/x\r HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
			denied{"CR within a value", head("GET", "X: a\rb"), "bad_header", 0},
			denied{"CR at the end of a value", head("GET", "X: a\r"), "bad_header", 0},
			denied{"CR in a name", head("GET", "X\ry: a"), "bad_header", 0},
			denied{"CR before a field", head("GET", "\rX: a"), "bad_header", 0},
			denied{"an empty line before the first", "\r\nGET {at}/x HTTP/1.1\r\nHost: {host}\r\n\r\n", "bad_request_line", 0},
		)
	}
}

func TestS05ObsFold(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, w := range bothWays(e) {
		w.denies(t,
			denied{"a field folded by a space", head("GET", "X: a", " b"), "bad_header", 0},
			denied{"a field folded by a tab", head("GET", "X: a", "\tb"), "bad_header", 0},
			denied{"a field that is all fold", head("GET", "X:", " a"), "bad_header", 0},
			denied{"a folded Host", "GET {at}/x HTTP/1.1\r\nHost:\r\n {host}\r\n\r\n", "bad_header", 0},
			denied{"a folded length", head("POST", "Content-Length:", " 3") + "abc", "bad_framing", 0},
			denied{"a folded coding", head("POST", "Transfer-Encoding:", " chunked") + "0\r\n\r\n", "bad_framing", 0},
			denied{"a folded request line", "GET {at}/x HTTP/1.1\r\n X: y\r\nHost: {host}\r\n\r\n", "bad_header", 0},
			denied{"a length hidden in a fold", head("POST", "X: a", " Content-Length: 3") + "abc", "bad_header", 0},
		)
	}
}

func TestS08TransferEncodingOnHTTP10(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	for _, w := range bothWays(e) {
		w.denies(t,
			denied{"chunked", "POST {at}/x HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad_framing", 0},
			denied{"chunked and kept alive", "POST {at}/x HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad_framing", 0},
			denied{"on a GET", "GET {at}/x HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad_framing", 0},
			denied{"identity", "POST {at}/x HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: identity\r\n\r\n", "bad_framing", 0},
		)
		c := w.dial(t)
		s := w.sends(t, c, "POST", "POST {at}/old HTTP/1.0\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc")
		w.wantHead(t, s, "POST /old HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\n")
		c.WantClosed()
	}
}

func TestS09TransferCodings(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	var rows []denied
	for _, value := range []string{
		"chunked, chunked", "gzip, chunked", "chunked, gzip", "gzip", "identity", ",chunked", "chunked,", "chunked;q=1",
		"\"chunked\"", "x-chunked", "chunked chunked", "chun ked", "", "cow", "\vchunked",
	} {
		row := denied{"a coding of " + value, head("POST", "Transfer-Encoding: "+value) + "0\r\n\r\n", "bad_framing", 0}
		if strings.Contains(value, "\v") {
			row.reason = "bad_header"
		}
		rows = append(rows, row)
	}
	rows = append(rows,
		denied{"two codings", head("POST", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
		denied{"two unlike codings", head("POST", "Transfer-Encoding: identity", "Transfer-Encoding: chunked") + "0\r\n\r\n", "bad_framing", 0},
		denied{"a coding with a space before the colon", head("POST", "Transfer-Encoding : chunked") + "0\r\n\r\n", "bad_header", 0},
	)
	for _, w := range bothWays(e) {
		w.denies(t, rows...)
		s := w.sends(t, w.dial(t), "POST", head("POST", "Transfer-Encoding: Chunked")+"3\r\nabc\r\n0\r\n\r\n")
		w.wantHead(t, s, "POST /x HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n")
	}
}

// TestS10ChunkSizes sends bodies that go wrong after their request was allowed:
// the head is at the origin, its end must never be.
func TestS10ChunkSizes(t *testing.T) {
	e := attacked(t, enginetest.Options{})
	chunked := func(path, body string) string {
		return "POST {at}" + path + " HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n" + body
	}
	for _, w := range bothWays(e) {
		for i, row := range []struct{ what, body string }{
			{"a size of 0x3", "0x3\r\nabc\r\n0\r\n\r\n"},
			{"a signed size", "+3\r\nabc\r\n0\r\n\r\n"},
			{"a negative size", "-3\r\nabc\r\n0\r\n\r\n"},
			{"a space after the size", "3 \r\nabc\r\n0\r\n\r\n"},
			{"a space before the size", " 3\r\nabc\r\n0\r\n\r\n"},
			{"an underscore in the size", "0_2e\r\n" + strings.Repeat("a", 0x2e) + "\r\n0\r\n\r\n"},
			{"no size", "\r\nabc\r\n0\r\n\r\n"},
			{"no size before an extension", ";a=b\r\nabc\r\n0\r\n\r\n"},
			{"17 digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"},
			{"a size of 2^64 + 3", "10000000000000003\r\nabc\r\n0\r\n\r\n"},
			{"a size of 2^63", "8000000000000000\r\nabc\r\n0\r\n\r\n"},
			{"a bare LF after the size", "3\nabc\r\n0\r\n\r\n"},
			{"a bare LF in an extension", "3;a=b\nabc\r\n0\r\n\r\n"},
			{"a bare CR in an extension", "3;a=\rb\r\nabc\r\n0\r\n\r\n"},
			{"a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n"},
			{"a chunk that ends in LF", "3\r\nabc\n0\r\n\r\n"},
			{"a second chunk without a size", "3\r\nabc\r\nxyz\r\n0\r\n\r\n"},
			{"an extension of many bytes", "3;" + strings.Repeat("a", 32<<10) + "\r\nabc\r\n0\r\n\r\n"},
			{"many extensions", strings.Repeat("1;"+strings.Repeat("a", 1<<10)+"\r\na\r\n", 64) + "0\r\n\r\n"},
			{"a last chunk without its end", "3\r\nabc\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n"},
		} {
			t.Run(row.what+" "+w.name, func(t *testing.T) {
				path := numbered(i)
				c := w.dial(t)
				defer c.Close()
				c.Send(w.raw(chunked(path, row.body) + smuggled))
				r := c.Reply("POST")
				if r.Status != 400 || (r.Reason() != "bad_chunk" && r.Reason() != "bad_trailer") {
					t.Errorf("got %d %q, want 400 bad_chunk", r.Status, r.Reason())
				}
				c.WantClosed()
				recorded(t, e, enginetest.Fields{
					"event": "egress_denied", "phase": "complete", "path": path, "host": w.host, "reason": r.Reason(), "status_code": 400,
				})
				w.wantCut(t, path)
			})
		}
		first := w.sends(t, w.dial(t), "POST", chunked("/extended", "3;a=b;c=\"d e\"\r\nabc\r\n1;x\r\nd\r\n0;last\r\n\r\n"))
		if string(first.Body) != "abcd" {
			t.Errorf("a body with extensions arrived as %q", first.Body)
		}
	}
	e.NoRecord(t, enginetest.Fields{"path": "/smuggled"})
}

// wantCut fails the test if the request for path arrived whole, or if its
// connection at the origin carries another request now.
func (w way) wantCut(t *testing.T, path string) {
	t.Helper()
	cut := -1
	for _, s := range w.e.Origin(w.host).Requests() {
		switch {
		case s.Path() == path && s.Complete:
			t.Errorf("%s arrived whole", s)
		case s.Path() == path:
			cut = s.Conn
		case s.Conn == cut:
			t.Errorf("%s came on the connection of a request that was broken off", s)
		}
	}
	s := w.sends(t, w.dial(t), "GET", "GET {at}/after HTTP/1.1\r\nHost: {host}\r\n\r\n")
	if s.Conn == cut {
		t.Errorf("the connection of a request that was broken off was used again")
	}
}
