package fuzz

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// FuzzRequestHead: a head that is accepted is accepted however it arrives; what
// was read, written and read again is the same; and the standard library, which
// is what many servers behind us are, sees the same method, target, host and
// framing in it.
func FuzzRequestHead(f *testing.F) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"POST /v1/messages?a=%zz HTTP/1.1\r\nHost: a.test:8443\r\nContent-Length: 3\r\nA:\t b \r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\nTrailer: x\r\n\r\n0\r\n\r\n",
		"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Connection: keep-alive\r\n\r\n\x16\x03\x01",
		"GET http://a.test/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost:\r\nConnection: x, close\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 03\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a.test\r\nContent_Length: 3\r\n\r\nabc",
		"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"GET / HTTP/1.1\nHost: a.test\n\n",
		"GET / HTTP/1.1\r\nHost: a.test\r\nA: b\r\n c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
		"GET /\x00 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /#f \xff HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		h, err := readHead(bytes.NewReader(wire))
		slowly, slowErr := readHead(iotest.OneByteReader(bytes.NewReader(wire)))
		if (err == nil) != (slowErr == nil) {
			t.Fatalf("%q at once: %v; byte by byte: %v", wire, err, slowErr)
		}
		if err != nil {
			var refusal *http1.Error
			if !errors.As(err, &refusal) && err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Fatalf("%q: error %v", wire, err)
			}
			return
		}
		if !reflect.DeepEqual(h, slowly) {
			t.Fatalf("%q at once: %+v; byte by byte: %+v", wire, h, slowly)
		}
		again, err := readHead(bytes.NewReader(writeHead(h, h.Target, "")))
		if err != nil {
			t.Fatalf("%q is refused when written again: %v", wire, err)
		}
		again.Size = h.Size
		if !reflect.DeepEqual(h, again) {
			t.Fatalf("%q was read as %+v, and again as %+v", wire, h, again)
		}
		compareWithNetHTTP(t, wire[:h.Size], h)
	})
}

func readHead(src io.Reader) (*http1.RequestHead, error) {
	h := new(http1.RequestHead)
	err := http1.NewReader(src).ReadRequest(h)
	return h, err
}

// writeHead writes h with another target, without the fields of one name.
func writeHead(h *http1.RequestHead, target []byte, without string) []byte {
	out := http1.AppendRequestLine(nil, h.Method, target)
	out[len(out)-len("1\r\n")] = '0' + h.Minor
	for _, f := range h.Fields {
		if !http1.EqualFold(f.Name, without) {
			out = http1.AppendField(out, f.Name, f.Value)
		}
	}
	return append(out, "\r\n"...)
}

// compareWithNetHTTP: net/http also judges the target's URL and the names that
// Trailer announces, which are not http1's to judge. A head that it refuses is
// compared without those two.
func compareWithNetHTTP(t *testing.T, wire []byte, h *http1.RequestHead) {
	target := h.Target
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
	if err != nil || target[0] != '/' {
		target = []byte("/")
		req, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(writeHead(h, target, "trailer"))))
	}
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", wire, err)
	}
	framing, length := http1.NoBody, req.ContentLength
	switch {
	case len(req.TransferEncoding) == 1 && req.TransferEncoding[0] == "chunked":
		framing = http1.Chunked
	case req.Header.Get("Content-Length") != "":
		framing = http1.Length
	}
	if req.Method != string(h.Method) || req.RequestURI != string(target) || req.Host != string(h.Host) || req.ProtoMinor != int(h.Minor) ||
		framing != h.Framing || length != h.Length {
		t.Fatalf("%q is %s %s of %q, %v %d to net/http; %+v to us", wire, req.Method, req.RequestURI, req.Host, framing, length, h)
	}
}

// FuzzChunkedBody: a chunked body is read as a parser that follows the grammar
// word for word reads it, in whatever pieces it arrives; what was read, written
// and read again is the same; and the standard library gets the same bytes.
func FuzzChunkedBody(f *testing.F) {
	for _, body := range []string{
		"0\r\n\r\n",
		"3\r\nabc\r\n0\r\n\r\n",
		"3;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n000\r\nGrpc-Status: 0\r\nX:\r\n\r\nGET / HTTP/1.1\r\n",
		"3 \r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "+3\r\nabc\r\n", "0_2e\r\n", "\r\n", "3;a\nb\r\nabc\r\n0\r\n\r\n",
		"10000000000000000\r\n", "8000000000000000\r\n", "00000000000000003\r\nabc\r\n0\r\n\r\n",
		"3\r\nabcd\r\n0\r\n\r\n", "3\nabc\n0\n\n", "3\r\nab", "0\r\nContent-Length: 3\r\n\r\n", "0\r\nA: b\r\n c\r\n\r\n", "0\r\nA: b\n\r\n",
		"1\r\na\r\n0\r\nContent_Length: 3\r\n\r\n", "0\r\nproxy-x: 3\r\n\r\n",
		"3;" + strings.Repeat("x", http1.MaxChunkLine-3) + "\r\nabc\r\n0\r\n\r\n",
		"3;" + strings.Repeat("x", http1.MaxChunkLine-2) + "\r\nabc\r\n0\r\n\r\n",
		"fff\r\n" + strings.Repeat("x", 4095) + "\r\n0\r\n\r\n",
	} {
		f.Add([]byte(body), uint16(0))
		f.Add([]byte(body), uint16(1))
		f.Add([]byte(body), uint16(5))
	}
	f.Fuzz(func(t *testing.T, wire []byte, most uint16) {
		want, wantOK := strictChunks(string(wire))
		got, err := readChunks(wire, int(most))
		if (err == nil) != wantOK {
			t.Fatalf("%q in pieces of %d: error %v, the grammar says %v", wire, most, err, wantOK)
		}
		if err != nil {
			return
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q in pieces of %d is %+v, the grammar says %+v", wire, most, got, want)
		}
		again, err := readChunks(got.write(int(most)), int(most))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%q is %+v, written again it is %+v, %v", wire, got, again, err)
		}
		data, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(wire)))
		if err != nil && !errors.Is(err, http.ErrLineTooLong) {
			t.Fatalf("net/http refuses %q: %v", wire, err)
		}
		if err == nil && string(data) != got.data {
			t.Fatalf("%q is %q to net/http, %q to us", wire, data, got.data)
		}
	})
}

// chunks is a chunked body and what came behind it.
type chunks struct {
	data     string
	trailers [][2]string
	rest     string
}

// write writes c in chunks of at most n bytes.
func (c chunks) write(n int) []byte {
	var out []byte
	for data := c.data; data != ""; {
		size := min(len(data), max(1, n))
		out = http1.AppendChunkHead(out, size)
		out = append(out, data[:size]+"\r\n"...)
		data = data[size:]
	}
	var trailers []http1.Field
	for _, t := range c.trailers {
		trailers = append(trailers, http1.Field{Name: []byte(t[0]), Value: []byte(t[1])})
	}
	return append(http1.AppendLastChunk(out, trailers), c.rest...)
}

// readChunks reads wire as a body that arrives in pieces of at most most bytes.
func readChunks(wire []byte, most int) (chunks, error) {
	const head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
	r := http1.NewReader(io.MultiReader(strings.NewReader(head), &pieces{wire, most}))
	var h http1.RequestHead
	if err := r.ReadRequest(&h); err != nil {
		return chunks{}, err
	}
	b := r.Body(h.Framing, h.Length)
	var c chunks
	for {
		buffered := b.Buffered()
		p, err := b.Next()
		c.data += string(p)
		if err == io.EOF {
			break
		}
		if err != nil {
			return chunks{}, err
		}
		if len(p) == 0 {
			return chunks{}, errors.New("no bytes and no error, buffered " + strconv.FormatBool(buffered))
		}
	}
	for _, f := range b.Trailers() {
		c.trailers = append(c.trailers, [2]string{string(f.Name), string(f.Value)})
	}
	if string(h.Method) != "POST" || string(h.Host) != "a.test" || !b.Done() {
		return chunks{}, errors.New("the body has changed its head, or ended without being done")
	}
	for { // from here on the head is no longer valid
		c.rest += string(r.Buffered())
		r.Discard(len(r.Buffered()))
		if r.Wait() != nil {
			return c, nil //nolint:nilerr // the end of the input is how this ends
		}
	}
}

type pieces struct {
	left []byte
	most int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	if p.most > 0 {
		b = b[:min(len(b), p.most)]
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

// strictChunks is the grammar of http1's package comment, written for clarity
// over a whole string. ok is false for what is malformed, cut or over a limit.
func strictChunks(wire string) (c chunks, ok bool) {
	extensions := 0
	for {
		line, rest, found := strings.Cut(wire, "\r\n")
		size, ext, hasExt := strings.Cut(line, ";")
		if !found || len(size) < 1 || len(size) > 16 || strings.Trim(size, "0123456789abcdefABCDEF") != "" || hasControl(ext) {
			return chunks{}, false
		}
		if hasExt {
			extensions += 1 + len(ext)
		}
		n, err := strconv.ParseInt(size, 16, 64)
		if err != nil || hasExt && len(line) >= http1.MaxChunkLine || extensions > http1.MaxExtensions {
			return chunks{}, false
		}
		if n == 0 {
			c.trailers, c.rest, ok = strictTrailers(rest)
			return c, ok
		}
		if n > int64(len(rest)) || !strings.HasPrefix(rest[n:], "\r\n") {
			return chunks{}, false
		}
		c.data += rest[:n]
		wire = rest[n+2:]
	}
}

func strictTrailers(wire string) (trailers [][2]string, rest string, ok bool) {
	whole := len(wire)
	for {
		line, rest, found := strings.Cut(wire, "\r\n")
		if !found || whole-len(rest) > http1.MaxTrailer {
			return nil, "", false
		}
		if line == "" {
			return trailers, rest, true
		}
		name, value, found := strings.Cut(line, ":")
		if !found || !http1.ValidToken([]byte(name)) || hasControl(value) || judgedBefore(name) || len(trailers) == http1.MaxTrailerFields {
			return nil, "", false
		}
		trailers = append(trailers, [2]string{name, strings.Trim(value, " \t")})
		wire = rest
	}
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// judgedBefore: fields that mean something only in the head.
func judgedBefore(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"proxy-", "if-", "x-forwarded-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "host", "range", "cookie", "expect", "pragma", "forwarded", "set-cookie", "set-cookie2", "content-type", "max-forwards", "authorization", "cache-control",
		"content-range", "content-encoding", "www-authenticate", "te", "trailer", "upgrade", "connection", "keep-alive", "http2-settings":
		return true
	}
	name = strings.ReplaceAll(name, "_", "-")
	return name == "content-length" || name == "transfer-encoding"
}
