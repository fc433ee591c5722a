package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// answer parses wire as the response to a request of method.
func answer(arrive func(io.Reader) io.Reader, method, wire string) (ResponseHead, *Reader, string, error) {
	r := NewReader(arrive(strings.NewReader(wire)))
	var h ResponseHead
	if err := r.ReadResponse(&h, []byte(method)); err != nil {
		return h, r, "", err
	}
	body, err := all(r.Body(h.Framing, h.Length))
	return h, r, body, err
}

func answerRefused(t *testing.T, wire, reason string) {
	t.Helper()
	for how, arrive := range arrivals {
		_, _, _, err := answer(arrive, "GET", wire)
		wantError(t, fmt.Sprintf("%+.80q %s", wire, how), err, reason, 502)
	}
}

func TestResponseHead(t *testing.T) {
	wire := "HTTP/1.1 200 All right\r\nServer: x\r\nContent-Length: 3\r\n\r\nabc"
	for how, arrive := range arrivals {
		h, r, body, err := answer(arrive, "GET", wire)
		if err != nil || body != "abc" || h.Status != 200 || string(h.Reason) != "All right" || h.Minor != 1 || len(h.Fields) != 2 ||
			h.Framing != Length || h.Length != 3 || !h.KeepAlive || h.Upgrade != nil || h.Size != len(wire)-3 || len(r.Buffered()) != 0 {
			t.Errorf("%s: got %+v, %q, %v", how, h, body, err)
		}
		h.Reset()
		if h.Reason != nil || h.Fields[:1][0].Name != nil {
			t.Error("Reset keeps aliases")
		}
	}
}

func TestStatusLine(t *testing.T) {
	for _, line := range []string{
		"", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 2000 OK", "HTTP/1.1 0200 OK", "HTTP/1.1 +20 OK", "HTTP/1.1 2 0 OK", "HTTP/1.1  200 OK",
		"HTTP/1.1 099 Low", "HTTP/1.1 600 High", "HTTP/1.1 999 High", "HTTP/1.1 2xx OK", "HTTP/1.1\t200 OK", "HTTP/1.1 200\tOK", "HTTP/2.0 200 OK", "HTTP/1.2 200 OK",
		"http/1.1 200 OK", "ICY 200 OK", " HTTP/1.1 200 OK", "HTTP/1.1 200 O\x00K", "HTTP/1.1 200 O\rK", "HTTP/1.1 200 \x7f", "SSH-2.0-OpenSSH_9.9",
	} {
		answerRefused(t, line+"\r\nContent-Length: 0\r\n\r\n", ReasonResponse)
	}
	for line, want := range map[string]string{
		"HTTP/1.1 200 OK": "200 OK", "HTTP/1.1 200 ": "200 ", "HTTP/1.1 200": "200 ", "HTTP/1.0 404 Nicht da é": "404 Nicht da é", "HTTP/1.1 599 \tx": "599 \tx",
	} {
		h, _, _, err := answer(arrivals["whole"], "GET", line+"\r\nContent-Length: 0\r\n\r\n")
		if got := fmt.Sprintf("%d %s", h.Status, h.Reason); got != want || err != nil {
			t.Errorf("%q: got %q, %v", line, got, err)
		}
	}
	// A server that talks first in another protocol is refused on its first bytes.
	for _, sent := range []string{"S", "220 mail.test ESMTP\r\n", "HTTP/2", "HTTP/1.1 200 OK\n", "HTTP/1.1 abc\r\n"} {
		var h ResponseHead
		r := NewReader(io.MultiReader(strings.NewReader(sent), blocked{t}))
		wantError(t, sent, r.ReadResponse(&h, nil), ReasonResponse, 502)
	}
}

func TestResponseEnds(t *testing.T) {
	var h ResponseHead
	if err := NewReader(strings.NewReader("")).ReadResponse(&h, nil); err != io.EOF {
		t.Errorf("closed before the head: got %v", err)
	}
	if err := NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nA")).ReadResponse(&h, nil); err != io.ErrUnexpectedEOF {
		t.Errorf("closed inside of the head: got %v", err)
	}
}

func TestS19ResponseFraming(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, wire := range []string{
		ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		ok + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		ok + "Content-Length: 3, 3\r\n\r\nabc",
		ok + "Content-Length: 03\r\n\r\nabc",
		ok + "Transfer-Encoding: gzip, chunked\r\n\r\n",
		ok + "Transfer-Encoding: identity\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 100 Continue\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n",
		ok + "A: b\r\n c\r\n\r\n", ok + "A : b\r\n\r\n", ok + "A: b\nC: d\r\n\r\n", "\r\n" + ok + "\r\n",
		ok + strings.Repeat("A: b\r\n", MaxFields+1) + "\r\n",
		ok + "A: " + strings.Repeat("x", MaxHead) + "\r\n\r\n",
	} {
		answerRefused(t, wire, ReasonResponse)
	}
	answerRefused(t, ok+"Transfer-Encoding: chunked\r\n\r\nx\r\n", ReasonChunk)
	answerRefused(t, ok+"Transfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: a=b\r\n\r\n", ReasonTrailer)
}

func TestS19ResponseBodies(t *testing.T) {
	for _, row := range []struct {
		what, method, wire string
		framing            Framing
		length             int64
		stays              bool
		body, surplus      string
	}{
		{"a length", "GET", "200 OK\r\nContent-Length: 2\r\n\r\nabX", Length, 2, true, "ab", "X"},
		{"a server that offers upgrades", "GET", "200 OK\r\nUpgrade: h2\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", Length, 0, true, "", ""},
		{"chunks", "GET", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nX", Chunked, -1, true, "ab", "X"},
		{"neither", "GET", "200 OK\r\n\r\nabX", UntilClose, -1, false, "abX", ""},
		{"neither, and the server says it stays", "GET", "200 OK\r\nConnection: keep-alive\r\n\r\nab", UntilClose, -1, false, "ab", ""},
		{"a server that closes", "GET", "200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Length, 0, false, "", ""},
		{"204", "GET", "204 No Content\r\n\r\n", NoBody, -1, true, "", ""},
		{"204 with bytes", "GET", "204 No Content\r\nContent-Length: 0\r\n\r\nX", NoBody, -1, true, "", "X"},
		{"204 that announces bytes", "GET", "204 No Content\r\nContent-Length: 1\r\n\r\nX", NoBody, -1, false, "", "X"},
		{"304", "GET", "304 Not Modified\r\nContent-Length: 9\r\n\r\nX", NoBody, 9, true, "", "X"},
		{"304 that would be chunked", "GET", "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", NoBody, -1, true, "", ""},
		{"HEAD", "HEAD", "200 OK\r\nContent-Length: 9\r\n\r\nX", NoBody, 9, true, "", "X"},
		{"HEAD without length", "HEAD", "200 OK\r\n\r\n", NoBody, -1, true, "", ""},
		{"HEAD that would be chunked", "HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", NoBody, -1, true, "", ""},
		{"100", "GET", "100 Continue\r\n\r\nHTTP/1.1 200", NoBody, -1, true, "", "HTTP/1.1 200"},
		{"103 with a length", "GET", "103 Early Hints\r\nContent-Length: 3\r\n\r\n", NoBody, -1, false, "", ""},
		{"101", "GET", "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nX", NoBody, -1, false, "", "X"},
		{"a tunnel", "CONNECT", "200 OK\r\nContent-Length: 3\r\n\r\nX", NoBody, -1, false, "", "X"},
		{"a refused tunnel", "CONNECT", "407 No\r\nContent-Length: 1\r\n\r\nX", Length, 1, true, "X", ""},
	} {
		h, r, body, err := answer(arrivals["whole"], row.method, "HTTP/1.1 "+row.wire)
		if err != nil || h.Framing != row.framing || h.Length != row.length || h.KeepAlive != row.stays || body != row.body || string(r.Buffered()) != row.surplus {
			t.Errorf("%s: got %v of %d, stays %v, body %q, surplus %q, %v", row.what, h.Framing, h.Length, h.KeepAlive, body, r.Buffered(), err)
		}
		if upgrade := row.what == "101"; upgrade != (string(h.Upgrade) == "websocket") {
			t.Errorf("%s: Upgrade %q", row.what, h.Upgrade)
		}
	}
	h, _, body, err := answer(arrivals["whole"], "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na")
	if err != nil || !h.KeepAlive || body != "a" {
		t.Errorf("HTTP/1.0 that stays: got %v %q %v", h.KeepAlive, body, err)
	}
}

// Each interim response is one call, so the caller can count them.
func TestS19InterimResponses(t *testing.T) {
	wire := strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 3) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for how, arrive := range arrivals {
		r := NewReader(arrive(strings.NewReader(wire)))
		for i, want := range []int{102, 102, 102, 200} {
			var h ResponseHead
			if err := r.ReadResponse(&h, []byte("GET")); err != nil || h.Status != want {
				t.Errorf("%s: head %d is %d, %v", how, i, h.Status, err)
			}
		}
	}
}

// A connection that breaks is not the end of a body that runs to the close: TLS
// reports a missing close_notify this way.
func TestS19CutIsNotTheEnd(t *testing.T) {
	cut := errors.New("cut")
	for _, err := range []error{cut, io.ErrUnexpectedEOF} {
		r := NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\n\r\nab"), failing{err}))
		var h ResponseHead
		if err := r.ReadResponse(&h, nil); err != nil {
			t.Fatal(err)
		}
		b := r.Body(h.Framing, h.Length)
		if body, got := all(b); body != "ab" || got != err || b.Done() {
			t.Errorf("got %q, %v, done %v", body, got, b.Done())
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
