//go:build !race

// The race detector makes sync.Pool drop pages at random, so allocations are
// counted without it.

package http1

import (
	"io"
	"testing"
)

// loop is a source that repeats its bytes, one whole message a read.
type loop struct {
	wire []byte
	at   int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.wire[l.at:])
	if l.at += n; l.at == len(l.wire) {
		l.at = 0
	}
	return n, nil
}

const usualRequest = "POST /v1/chat/completions HTTP/1.1\r\n" +
	"Host: api.openai.example\r\n" +
	"User-Agent: OpenAI/Python 1.55.3\r\n" +
	"Accept: application/json\r\n" +
	"Authorization: Bearer sk-proj-0123456789abcdefghijklmnopqrstuvwxyz0123456789\r\n" +
	"Content-Type: application/json\r\n" +
	"Content-Length: 64\r\n\r\n"

const usualBody = `{"model":"gpt-4o-mini","messages":[{"role":"user","content":""}]}`

const usualResponse = "HTTP/1.1 200 OK\r\n" +
	"Date: Mon, 23 Nov 2026 10:00:00 GMT\r\n" +
	"Content-Type: application/json\r\n" +
	"Transfer-Encoding: chunked\r\n" +
	"Connection: keep-alive\r\n" +
	"Server: cloudflare\r\n\r\n" +
	"5\r\nhello\r\n6\r\n world\r\n0\r\nT: v\r\n\r\n"

func request(tb testing.TB, r *Reader, h *RequestHead) {
	if err := r.Wait(); err != nil {
		tb.Fatal(err)
	}
	if err := r.ReadRequest(h); err != nil {
		tb.Fatal(err)
	}
	drain(tb, r.Body(h.Framing, h.Length))
}

func drain(tb testing.TB, b *Body) {
	for {
		if _, err := b.Next(); err == io.EOF {
			return
		} else if err != nil {
			tb.Fatal(err)
		}
	}
}

func TestNoAllocationsPerExchange(t *testing.T) {
	r := NewReader(&loop{wire: []byte(usualRequest + usualBody[:64])})
	up := NewReader(&loop{wire: []byte(usualResponse)})
	var h RequestHead
	var a ResponseHead
	method := []byte("POST")
	out := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		request(t, r, &h)
		if err := up.ReadResponse(&a, method); err != nil {
			t.Fatal(err)
		}
		b := up.Body(a.Framing, a.Length)
		b.Buffered()
		drain(t, b)
		out = AppendRequestLine(out[:0], h.Method, h.Target)
		for i := range h.Fields {
			if !HopByHop(h.Fields[i].Name) && !ConnectionNames(a.Fields, h.Fields[i].Name) {
				out = AppendField(out, h.Fields[i].Name, h.Fields[i].Value)
			}
		}
		out = AppendStatusLine(out, a.Status)
		out = AppendContentLength(out, h.Length)
		out = AppendChunkHead(out, 1000)
		out = AppendLastChunk(out, b.Trailers())
		up.Release()
	}); n != 0 {
		t.Errorf("%v allocations an exchange, want none", n)
	}
}

func BenchmarkReadRequest(b *testing.B) {
	wire := usualRequest + usualBody[:64]
	r := NewReader(&loop{wire: []byte(wire)})
	var h RequestHead
	b.ReportAllocs()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		request(b, r, &h)
	}
}

func BenchmarkReadResponse(b *testing.B) {
	r := NewReader(&loop{wire: []byte(usualResponse)})
	var h ResponseHead
	b.ReportAllocs()
	b.SetBytes(int64(len(usualResponse)))
	for b.Loop() {
		if err := r.ReadResponse(&h, nil); err != nil {
			b.Fatal(err)
		}
		drain(b, r.Body(h.Framing, h.Length))
		r.Release()
	}
}

func BenchmarkAppendHead(b *testing.B) {
	r := NewReader(&loop{wire: []byte(usualRequest + usualBody[:64])})
	var h RequestHead
	request(b, r, &h)
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequestLine(out[:0], h.Method, h.Target)
		for i := range h.Fields {
			out = AppendField(out, h.Fields[i].Name, h.Fields[i].Value)
		}
	}
}

// zeros is an endless source that fills whatever it is given, as records of 16 KiB.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return min(len(p), 16<<10), nil }

func BenchmarkLengthBody(b *testing.B) {
	r := NewReader(zeros{})
	b.ReportAllocs()
	b.SetBytes(1 << 20)
	for b.Loop() {
		drain(b, r.Body(Length, 1<<20))
		r.Release()
	}
}

func BenchmarkChunkedBody(b *testing.B) {
	var wire []byte
	for range 16 {
		wire = AppendChunkHead(wire, 8<<10)
		wire = append(wire, make([]byte, 8<<10)...)
		wire = append(wire, "\r\n"...)
	}
	wire = AppendLastChunk(wire, nil)
	r := NewReader(&loop{wire: wire})
	b.ReportAllocs()
	b.SetBytes(128 << 10)
	for b.Loop() {
		drain(b, r.Body(Chunked, -1))
	}
}
