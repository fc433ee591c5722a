package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// arrivals are the ways in which the same bytes can come in.
var arrivals = map[string]func(io.Reader) io.Reader{
	"whole":        func(r io.Reader) io.Reader { return r },
	"byte by byte": iotest.OneByteReader,
	"in halves":    iotest.HalfReader,
	"with its end": iotest.DataErrReader,
}

// read parses wire as a request and its body, however it arrives.
func read(t *testing.T, arrive func(io.Reader) io.Reader, wire string) (RequestHead, string, *Body, error) {
	t.Helper()
	r := NewReader(arrive(strings.NewReader(wire)))
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		return h, "", nil, err
	}
	b := r.Body(h.Framing, h.Length)
	body, err := all(b)
	return h, body, b, err
}

// all reads a body to its end.
func all(b *Body) (string, error) {
	var s strings.Builder
	for {
		p, err := b.Next()
		s.Write(p)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return s.String(), err
		}
	}
}

// refused asserts that wire is refused with reason and status, however it arrives.
func refused(t *testing.T, wire, reason string, status int) {
	t.Helper()
	for how, arrive := range arrivals {
		_, _, _, err := read(t, arrive, wire)
		wantError(t, fmt.Sprintf("%+.80q %s", wire, how), err, reason, status)
	}
}

func wantError(t *testing.T, what string, err error, reason string, status int) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Reason != reason || e.Status != status {
		t.Errorf("%s: got error %v, want %s with status %d", what, err, reason, status)
		return
	}
	if len(e.Detail) == 0 || len(e.Detail) > 300 || indexInvisible([]byte(strings.ReplaceAll(e.Detail, " ", ""))) >= 0 {
		t.Errorf("%s: detail %q is not a short line of ASCII", what, e.Detail)
	}
	if !strings.HasPrefix(e.Error(), reason+": ") {
		t.Errorf("%s: message %q does not begin with the reason", what, e)
	}
}

// accepted asserts that wire is a whole request with that body, however it arrives.
func accepted(t *testing.T, wire, body string) RequestHead {
	t.Helper()
	var last RequestHead
	for how, arrive := range arrivals {
		h, got, b, err := read(t, arrive, wire)
		if err != nil || got != body || !b.Done() {
			t.Errorf("%+.80q %s: body %q, error %v, done %v; want body %q", wire, how, got, err, b != nil && b.Done(), body)
		}
		last = h
	}
	return last
}

// with is a GET with these field lines besides Host.
func with(lines string) string { return "GET /x HTTP/1.1\r\nHost: a.test\r\n" + lines + "\r\n" }

func TestRequestHead(t *testing.T) {
	wire := "POST /v1/messages?a=1 HTTP/1.1\r\nHost: api.test:8443\r\nX-Empty:\r\nx-spaced: \t a b\t \r\nContent-Length: 3\r\n\r\nabc"
	h := accepted(t, wire, "abc")
	if string(h.Method) != "POST" || string(h.Target) != "/v1/messages?a=1" || h.Minor != 1 || string(h.Host) != "api.test:8443" ||
		h.Framing != Length || h.Length != 3 || !h.KeepAlive || h.ExpectContinue || h.Upgrade != nil || h.Size != len(wire)-3 {
		t.Errorf("got %+v", h)
	}
	want := [][2]string{{"Host", "api.test:8443"}, {"X-Empty", ""}, {"x-spaced", "a b"}, {"Content-Length", "3"}}
	if len(h.Fields) != len(want) {
		t.Fatalf("%d fields, want %d", len(h.Fields), len(want))
	}
	for i, f := range h.Fields {
		if string(f.Name) != want[i][0] || string(f.Value) != want[i][1] {
			t.Errorf("field %d is %q: %q, want %q", i, f.Name, f.Value, want[i])
		}
	}
	h.Reset()
	if h.Method != nil || h.Fields[:1][0].Name != nil {
		t.Error("Reset keeps aliases")
	}
}

func TestRequestLine(t *testing.T) {
	for _, line := range []string{
		"", " ", "GET", "GET ", "GET /", "GET / ", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1",
		"GET  HTTP/1.1", "GET HTTP/1.1", "GET\t/ HTTP/1.1", "GET / HTTP/1.1\t", "GET / http/1.1", "GET / HTTP/1,1", "GET / HTTP/11",
		"GET / HTTP/1.10", "GET / HTTP/01.1", "GET / HTTP/+.1", "GET / HTTP/1.x", "GET / HTTPS/1.1", "G@T / HTTP/1.1", "(GET) / HTTP/1.1", "GET /a b HTTP/1.1",
		"GET /\x00 HTTP/1.1", "GET /\x1f HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /é HTTP/1.1", "GET /12345678\x80 HTTP/1.1", "GET /1234567\t8 HTTP/1.1",
		"\x16\x03\x01\x02", "SSH-2.0-OpenSSH_9.9", "EHLO mail.test", strings.Repeat("M", MaxMethod+1) + " / HTTP/1.1",
	} {
		refused(t, line+"\r\nHost: a.test\r\n\r\n", ReasonRequestLine, 400)
	}
	for _, version := range []string{"HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"} {
		refused(t, "GET / "+version+"\r\nHost: a.test\r\n\r\n", ReasonRequestLine, 505)
	}
	for _, target := range []string{"/", "*", "http://a.test/", "a.test:443", "/%zz", "/#", "/" + strings.Repeat("x", MaxTarget-1)} {
		if h := accepted(t, "M-SEARCH "+target+" HTTP/1.1\r\nHost: a.test\r\n\r\n", ""); string(h.Target) != target || string(h.Method) != "M-SEARCH" {
			t.Errorf("%.40q became %s %.40q", target, h.Method, h.Target)
		}
	}
	refused(t, "GET /"+strings.Repeat("x", MaxTarget)+" HTTP/1.1\r\nHost: a.test\r\n\r\n", ReasonHeadTooLarge, 431)
}

// A peer that speaks another protocol may wait for an answer before it sends
// more, so it is refused on what it has sent.
func TestOtherProtocolIsRefusedBeforeItsHeadEnds(t *testing.T) {
	for _, sent := range []string{"\x16\x03\x01", "SSH-2.0-OpenSSH_9.9\r\n", "GET /\x00", "GET /\rx", "\r\n", "\n", "GET / HTTP/1.1\n", "PRI * HTTP/2.0\r\n"} {
		r := NewReader(io.MultiReader(strings.NewReader(sent), blocked{t}))
		var h RequestHead
		var e *Error
		if err := r.ReadRequest(&h); !errors.As(err, &e) {
			t.Errorf("%q: got %v, want a refusal", sent, err)
		}
		r.Reset(io.MultiReader(iotest.OneByteReader(strings.NewReader(sent)), blocked{t}))
		if err := r.ReadRequest(&h); !errors.As(err, &e) {
			t.Errorf("%q byte by byte: got %v, want a refusal", sent, err)
		}
	}
}

// blocked is a source that must not be asked.
type blocked struct{ t *testing.T }

func (b blocked) Read([]byte) (int, error) {
	b.t.Error("read from the source although what is there decides")
	return 0, io.ErrClosedPipe
}

func TestEndOfConnectionAroundAHead(t *testing.T) {
	wire := with("A: b\r\n")
	for n := range len(wire) {
		for how, arrive := range arrivals {
			_, _, _, err := read(t, arrive, wire[:n])
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if err != want {
				t.Errorf("closed after %d bytes, %s: got %v, want %v", n, how, err, want)
			}
		}
	}
}

func TestHost(t *testing.T) {
	refused(t, "GET / HTTP/1.1\r\n\r\n", ReasonHeader, 400)
	refused(t, "GET / HTTP/1.1\r\nHost: a.test\r\nhost: a.test\r\n\r\n", ReasonHeader, 400)
	refused(t, "GET / HTTP/1.0\r\nHost: a.test\r\nHOST: b.test\r\n\r\n", ReasonHeader, 400)
	if h := accepted(t, "GET / HTTP/1.0\r\n\r\n", ""); h.Host != nil {
		t.Errorf("HTTP/1.0 without Host has Host %q", h.Host)
	}
	if h := accepted(t, "GET / HTTP/1.1\r\nHost:\r\n\r\n", ""); h.Host == nil || len(h.Host) != 0 {
		t.Errorf("an empty Host is %#v, want empty and present", h.Host)
	}
}

func TestS01ContentLengthWithTransferEncoding(t *testing.T) {
	refused(t, with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")+"0\r\n\r\n", ReasonFraming, 400)
	refused(t, with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")+"0\r\n\r\n", ReasonFraming, 400)
	refused(t, with("transfer-encoding: CHUNKED\r\nX: y\r\ncontent-length: 0\r\n"), ReasonFraming, 400)
}

func TestS02ContentLengthTwice(t *testing.T) {
	refused(t, with("Content-Length: 3\r\nContent-Length: 4\r\n")+"abcd", ReasonFraming, 400)
	refused(t, with("Content-Length: 3\r\ncontent-length: 3\r\n")+"abc", ReasonFraming, 400)
	refused(t, with("Content-Length: 0\r\nX: y\r\nContent-Length: 0\r\n"), ReasonFraming, 400)
}

func TestS03ContentLengthSpellings(t *testing.T) {
	for _, v := range []string{
		"010", "00", "+3", "-3", "-0", "3,3", "3, 3", "", "0x10", "3 3", "3.0", "3e0", "3;", "٣", "\"3\"", "1_0",
		"18446744073709551617", "12345678901234567890", strings.Repeat("1", 100), "9223372036854775808", "9999999999999999999",
	} {
		refused(t, with("Content-Length: "+v+"\r\n"), ReasonFraming, 400)
	}
	for v, n := range map[string]int64{"0": 0, "7": 7, "10": 10, " 42\t": 42, "9223372036854775807": 1<<63 - 1} {
		var h RequestHead
		if err := NewReader(strings.NewReader(with("Content-Length:" + v + "\r\n"))).ReadRequest(&h); err != nil || h.Length != n || h.Framing != Length {
			t.Errorf("%q: got %v %d, %v", v, h.Framing, h.Length, err)
		}
	}
	// What gateways that make variables of fields take for the real ones.
	refused(t, with("Content_Length: 3\r\n"), ReasonFraming, 400)
	refused(t, with("Transfer_encoding: chunked\r\n"), ReasonFraming, 400)
	accepted(t, with("Fourteen-Chars: 3\r\nSeventeen--Letter: 4\r\n"), "")
}

func TestS04BareLineEnds(t *testing.T) {
	good := with("A: b\r\nC: d\r\n")
	for i := range len(good) {
		if good[i] != '\r' {
			continue
		}
		for _, end := range []string{"\n", "\r", "\r\r\n", "\n\r"} {
			wire := good[:i] + end + good[i+2:]
			for how, arrive := range arrivals {
				_, _, _, err := read(t, arrive, wire+"\r\n\r\n")
				var e *Error
				if !errors.As(err, &e) || e.Status != 400 {
					t.Errorf("%q %s: got %v, want a refusal", wire, how, err)
				}
			}
		}
	}
	refused(t, with("A: b\rc\r\n"), ReasonHeader, 400)
	refused(t, with("A: b\nc: d\r\n"), ReasonHeader, 400)
	refused(t, "\r\n"+with(""), ReasonRequestLine, 400)
	refused(t, "\n"+with(""), ReasonHeader, 400)
}

func TestS05LineFolding(t *testing.T) {
	refused(t, with("A: b\r\n c\r\n"), ReasonHeader, 400)
	refused(t, with("A: b\r\n\tc\r\n"), ReasonHeader, 400)
	refused(t, with("Transfer-Encoding:\r\n chunked\r\n"), ReasonFraming, 400)
	refused(t, with("A: b\r\n \r\n"), ReasonHeader, 400)
	refused(t, "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", ReasonHeader, 400)
}

func TestS08TransferEncodingOnHTTP10(t *testing.T) {
	refused(t, "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ReasonFraming, 400)
	refused(t, "POST / HTTP/1.0\r\nConnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", ReasonFraming, 400)
}

func TestS09TransferEncodingSpellings(t *testing.T) {
	for _, v := range []string{
		"chunked, chunked", "gzip, chunked", "identity", ",chunked", "chunked,", "chunked;q=1", "\"chunked\"", "xchunked", "chunke", "",
		"chunked chunked", "\x0bchunked", "deflate", "trailers",
	} {
		reason := ReasonFraming
		if strings.Contains(v, "\x0b") {
			reason = ReasonHeader
		}
		refused(t, with("Transfer-Encoding: "+v+"\r\n")+"0\r\n\r\n", reason, 400)
	}
	refused(t, with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")+"0\r\n\r\n", ReasonFraming, 400)
	refused(t, with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")+"0\r\n\r\n", ReasonFraming, 400)
	h := accepted(t, with("Transfer-Encoding: \t Chunked \r\n")+"3\r\nabc\r\n0\r\n\r\n", "abc")
	if h.Framing != Chunked || h.Length != -1 {
		t.Errorf("got %v %d", h.Framing, h.Length)
	}
}

func TestS12BodyOnAnyMethodOnlyWhenFramed(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "POST"} {
		for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
			head := method + " / HTTP/1.1\r\nHost: a.test\r\n" + expect
			if h := accepted(t, head+"Content-Length: 3\r\n\r\nabc", "abc"); h.Framing != Length || h.ExpectContinue != (expect != "") {
				t.Errorf("%s: got %v, expect %v", method, h.Framing, h.ExpectContinue)
			}
			accepted(t, head+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc")
			if h := accepted(t, head+"\r\n", ""); h.Framing != NoBody || h.Length != 0 {
				t.Errorf("%s without framing: got %v of %d", method, h.Framing, h.Length)
			}
		}
	}
}

func TestS13Expect(t *testing.T) {
	for _, v := range []string{"", "100", "200-ok", "100-continue, 100-continue", "100-continue;q=1", "x"} {
		refused(t, with("Expect: "+v+"\r\n"), ReasonExpect, 417)
	}
	refused(t, with("Expect: 100-continue\r\nExpect: 100-continue\r\n"), ReasonExpect, 417)
	refused(t, with("Expect: 100-continue\r\nExpect: other\r\n"), ReasonExpect, 417)
	refused(t, with("Expect: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n"), ReasonFraming, 400)
	if h := accepted(t, with("expect: 100-Continue\r\n"), ""); !h.ExpectContinue {
		t.Error("100-continue is not seen")
	}
	// RFC 9110 section 10.1.1: ignored from HTTP/1.0.
	if h := accepted(t, "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", ""); h.ExpectContinue {
		t.Error("an HTTP/1.0 client would get a 100")
	}
}

func TestS14RequestsInOneSegment(t *testing.T) {
	wire := with("Content-Length: 4\r\n") + "GET " +
		"POST /2 HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n" +
		"DELETE /3 HTTP/1.1\r\nHost: c.test\r\n\r\n" +
		"GET /4 HTTP/1.1\r\nHost: d.test\r\nHost: d.test\r\n\r\n"
	for how, arrive := range arrivals {
		r := NewReader(arrive(strings.NewReader(wire)))
		var h RequestHead
		for i, want := range []string{"GET /x a.test GET ", "POST /2 b.test abc", "DELETE /3 c.test "} {
			if err := r.Wait(); err != nil {
				t.Fatalf("%s: waiting for request %d: %v", how, i+1, err)
			}
			if err := r.ReadRequest(&h); err != nil {
				t.Fatalf("%s: request %d: %v", how, i+1, err)
			}
			body, err := all(r.Body(h.Framing, h.Length))
			if got := fmt.Sprintf("%s %s %s %s", h.Method, h.Target, h.Host, body); got != want || err != nil {
				t.Errorf("%s: request %d is %q, %v; want %q", how, i+1, got, err, want)
			}
		}
		wantError(t, how, r.ReadRequest(&h), ReasonHeader, 400)
		wantError(t, how+", again", r.ReadRequest(&h), ReasonHeader, 400)
	}
}

// The head behind a body is not looked for inside of the body.
func TestS14NoHeadBeforeTheBodyIsRead(t *testing.T) {
	for _, framing := range []string{"Content-Length: 60\r\n", "Transfer-Encoding: chunked\r\n"} {
		r := NewReader(strings.NewReader(with(framing) + with("") + with("")))
		var h RequestHead
		if err := r.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if err := r.ReadRequest(&h); err != ErrBodyUnread {
			t.Errorf("%q, body not begun: got %v", framing, err)
		}
		if _, err := r.Body(NoBody, 0).Next(); err != errBodyFraming {
			t.Errorf("%q, its body left out: got %v", framing, err)
		}
		if err := r.ReadRequest(&h); err != ErrBodyUnread {
			t.Errorf("%q, its body left out: next head %v", framing, err)
		}
		r.Body(Length, 60).Next()
		r.Body(Chunked, -1)
		if err := r.ReadRequest(&h); err != ErrBodyUnread {
			t.Errorf("%q, body not ended: got %v", framing, err)
		}
	}
}

func TestS16BytesAndShapeOfFields(t *testing.T) {
	for c := range 256 {
		inValue := with("A: 1234567890" + string([]byte{byte(c)}) + "1234567890\r\n")
		switch {
		case c == '\r' || c == '\n', c == 0x7f, c < 0x20 && c != '\t':
			refused(t, inValue, ReasonHeader, 400)
		default:
			accepted(t, inValue, "")
		}
		inName := with("Ab" + string([]byte{byte(c)}) + "cd: e\r\n")
		if strings.IndexByte("!#$%&'*+-.^_`|~:", byte(c)) >= 0 || c >= '0' && c <= '9' || lower(byte(c)) >= 'a' && lower(byte(c)) <= 'z' {
			accepted(t, inName, "")
		} else {
			refused(t, inName, ReasonHeader, 400)
		}
	}
	for _, line := range []string{"A : b", "A\t: b", " A: b", "\tA: b", ": b", ":", "A", "A b", "A\x00: b", "A: \x00", "A: \x0b", "A:\x0c", "A\r: b", "A: b\r"} {
		refused(t, with(line+"\r\n"), ReasonHeader, 400)
		refused(t, "GET / HTTP/1.1\r\n"+line+"\r\nHost: a.test\r\n\r\n", ReasonHeader, 400)
	}
}

// What the log says about a bad field does not tell what was in it.
func TestDetailsKeepSecrets(t *testing.T) {
	for _, wire := range []string{
		with("Authorization: Bearer s3cr3t\x00\r\n"), with("Authorization: a\r\n s3cr3t\r\n"), with("s3cr3t\r\n"), with("s3cr3t x: y\r\n"),
		"GET /?s3cr3t=\x00 HTTP/1.1\r\n\r\n", "GET /? s3cr3t HTTP/1.1\r\n\r\n", "GET /?s3cr3t\r\n\r\n", "s3cr3t s3cr3t\r\n\r\n",
	} {
		_, _, _, err := read(t, arrivals["whole"], wire)
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: %v", wire, err)
		}
	}
}

func TestKeepAlive(t *testing.T) {
	for _, row := range []struct {
		version, lines string
		stays          bool
	}{
		{"1.1", "", true},
		{"1.1", "Connection: close\r\n", false},
		{"1.1", "Connection: x, CLOSE\r\n", false},
		{"1.1", "Connection: x\r\nConnection: ,, close ,\r\n", false},
		{"1.1", "Connection: keep-alive, close\r\n", false},
		{"1.1", "Connection: closed\r\n", true},
		{"1.0", "", false},
		{"1.0", "Connection: Keep-Alive\r\n", true},
		{"1.0", "Connection: keep-alive\r\nConnection: close\r\n", false},
	} {
		if h := accepted(t, "GET / HTTP/"+row.version+"\r\nHost: a.test\r\n"+row.lines+"\r\n", ""); h.KeepAlive != row.stays {
			t.Errorf("HTTP/%s %q: stays %v, want %v", row.version, row.lines, h.KeepAlive, row.stays)
		}
	}
	refused(t, with("Connection: close x\r\n"), ReasonHeader, 400)
	refused(t, with("Connection: \"close\"\r\n"), ReasonHeader, 400)
}

func TestUpgrade(t *testing.T) {
	if h := accepted(t, with("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"), ""); string(h.Upgrade) != "websocket" {
		t.Errorf("got %q", h.Upgrade)
	}
	if h := accepted(t, with("Upgrade: websocket\r\n"), ""); h.Upgrade != nil {
		t.Errorf("not named by Connection, but got %q", h.Upgrade)
	}
	if h := accepted(t, with("Connection: upgrade\r\n"), ""); h.Upgrade != nil {
		t.Errorf("no Upgrade, but got %q", h.Upgrade)
	}
	if h := accepted(t, "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ""); h.Upgrade != nil {
		t.Errorf("on HTTP/1.0, but got %q", h.Upgrade)
	}
	refused(t, with("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"), ReasonHeader, 400)
	refused(t, with("Connection: upgrade\r\nUpgrade: \r\n"), ReasonHeader, 400)
}

func TestR03HeadLimits(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("A: b\r\n", n) }
	accepted(t, with(lines(MaxFields-1)), "")
	refused(t, with(lines(MaxFields)), ReasonTooManyFields, 431)
	refused(t, with(lines(MaxHead)), ReasonTooManyFields, 431)

	pad := MaxHead - len(with("A: \r\n"))
	if h := accepted(t, with("A: "+strings.Repeat("x", pad)+"\r\n"), ""); h.Size != MaxHead {
		t.Errorf("size %d, want %d", h.Size, MaxHead)
	}
	refused(t, with("A: "+strings.Repeat("x", pad+1)+"\r\n"), ReasonHeadTooLarge, 431)
	refused(t, "GET /"+strings.Repeat("x", MaxHead), ReasonHeadTooLarge, 431)
	refused(t, with("A: "+strings.Repeat("x", MaxHead)), ReasonHeadTooLarge, 431)
	// The largest head with a body behind it: there is no room beside it.
	accepted(t, with("Content-Length: 5000\r\nA: "+strings.Repeat("x", pad-len("Content-Length: 5000\r\n"))+"\r\n")+strings.Repeat("b", 5000), strings.Repeat("b", 5000))
}
