package http1

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// sourceFunc is a source that looks at its reader while it is asked.
type sourceFunc func(p []byte) (int, error)

func (f sourceFunc) Read(p []byte) (int, error) { return f(p) }

func TestR07WaitHoldsNoPage(t *testing.T) {
	stream := strings.NewReader(with("Content-Length: 3\r\n") + "abc" + with(""))
	var r *Reader
	waiting := false
	r = NewReader(sourceFunc(func(p []byte) (int, error) {
		if waiting {
			if r.page != nil || r.held != nil || len(p) != 1 {
				t.Error("a page is held while nothing is there")
			}
			waiting = false
			return stream.Read(p)
		}
		return stream.Read(p[:min(len(p), 7)])
	}))
	var h RequestHead
	for range 2 {
		waiting = len(r.Buffered()) == 0
		if err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := len(r.Buffered()); n == 0 {
			t.Fatal("Wait came back with nothing")
		}
		if err := r.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := all(r.Body(h.Framing, h.Length)); err != nil {
			t.Fatal(err)
		}
	}
	waiting = true
	if err := r.Wait(); err != io.EOF {
		t.Errorf("at the end: got %v", err)
	}
	if r.page != nil {
		t.Error("a page is held after the end")
	}
}

func TestWaitReportsAnErrorThatCameWithBytes(t *testing.T) {
	broken := errors.New("broken")
	r := NewReader(iotest.DataErrReader(io.MultiReader(strings.NewReader(with("")), failing{broken})))
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != broken {
		t.Errorf("got %v", err)
	}
}

func TestSourceThatReturnsNothing(t *testing.T) {
	r := NewReader(sourceFunc(func([]byte) (int, error) { return 0, nil }))
	if err := r.Wait(); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
}

func TestBufferedDiscardRelease(t *testing.T) {
	r := NewReader(strings.NewReader("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n\x16\x03\x01"))
	if r.Buffered() != nil {
		t.Error("buffered before anything was read")
	}
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	if got := string(r.Buffered()); got != "\x16\x03\x01" {
		t.Fatalf("buffered %q", got)
	}
	r.Release()
	r.Discard(-1)
	r.Discard(1)
	if got := string(r.Buffered()); got != "\x03\x01" {
		t.Errorf("after Release and Discard: buffered %q", got)
	}
	r.Discard(99)
	r.Release()
	if r.page != nil || r.Buffered() != nil {
		t.Error("an empty page is kept")
	}
	r.Reset(strings.NewReader(with("")))
	if err := r.ReadRequest(&h); err != nil || string(h.Host) != "a.test" {
		t.Errorf("after Reset: %q, %v", h.Host, err)
	}
}

func TestResetForgetsWhatWasThere(t *testing.T) {
	r := NewReader(strings.NewReader(chunked("3\r\nabc\r\n0\r\nT: v\r\n\r\n") + chunked("3\r\nab")))
	var h RequestHead
	for range 2 {
		if err := r.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		all(r.Body(h.Framing, h.Length))
	}
	r.Reset(strings.NewReader(with("")))
	if len(r.Buffered()) != 0 || r.page != nil || r.body.trailers[:1][0].Name != nil {
		t.Error("Reset keeps bytes or aliases")
	}
	if err := r.ReadRequest(&h); err != nil {
		t.Error(err)
	}
}

// A release in the middle of a body that pauses costs the head, not the body.
func TestReleaseInsideABody(t *testing.T) {
	r := NewReader(iotest.OneByteReader(strings.NewReader(with("Content-Length: 3\r\n") + "abc")))
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	b := r.Body(h.Framing, h.Length)
	var got []byte
	for {
		p, err := b.Next()
		if err != nil {
			break
		}
		got = append(got, p...)
		r.Release()
	}
	if string(got) != "abc" || !b.Done() {
		t.Errorf("got %q, done %v", got, b.Done())
	}
}

// A stream that has gone quiet goes back to its small page.
func TestR08QuietStreamHoldsNoLargePage(t *testing.T) {
	pieces := []string{"HTTP/1.1 200 OK\r\nX: marker\r\n\r\n", strings.Repeat("a", 60_000), "data: 1\n\n", "data: 2\n\n", "data: 3\n\n"}
	r := NewReader(&gate{t: t, pieces: pieces, open: true})
	var h ResponseHead
	if err := r.ReadResponse(&h, nil); err != nil {
		t.Fatal(err)
	}
	b := r.Body(h.Framing, h.Length)
	sawLarge := false
	n := 0
	for {
		p, err := b.Next()
		if err != nil {
			break
		}
		n += len(p)
		sawLarge = sawLarge || len(r.page.data) == largePage
	}
	if !sawLarge || n != 60_000+27 || len(r.page.data) != smallPage || r.held != nil {
		t.Errorf("large page used %v, %d bytes, now %d bytes of page", sawLarge, n, len(r.page.data))
	}
	if string(h.Fields[0].Value) != "marker" {
		t.Errorf("the head became %q", h.Fields[0].Value)
	}
}

// Heads of every size class, bodies of every framing and size, in segments of
// random length, pipelined: each head is still what it was when its body has
// been read, and each body is its own.
func TestHeadsStayValidWhileBodiesAreRead(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		var wire strings.Builder
		type message struct{ id, pad, body string }
		var sent []message
		for i := range 8 {
			m := message{
				id:   fmt.Sprintf("/%d/%d", round, i),
				pad:  strings.Repeat(string(rune('a'+i)), []int{1, 100, 3950, 4050, 9000, 17000, 60000}[random.IntN(7)]),
				body: strings.Repeat(fmt.Sprintf("%d.%d|", round, i), random.IntN([]int{1, 10, 800, 30000}[random.IntN(4)])),
			}
			sent = append(sent, m)
			fmt.Fprintf(&wire, "POST %s HTTP/1.1\r\nHost: a.test\r\nPad: %s\r\n", m.id, m.pad)
			if random.IntN(2) == 0 {
				fmt.Fprintf(&wire, "Content-Length: %d\r\n\r\n%s", len(m.body), m.body)
				continue
			}
			wire.WriteString("Transfer-Encoding: chunked\r\n\r\n")
			for rest := m.body; rest != ""; {
				n := min(len(rest), 1+random.IntN([]int{10, 5000, 100000}[random.IntN(3)]))
				wire.Write(AppendChunkHead(nil, n))
				wire.WriteString(rest[:n] + "\r\n")
				rest = rest[n:]
			}
			wire.WriteString("0\r\nT: v\r\n\r\n")
		}
		stream, most := strings.NewReader(wire.String()), []int{3, 100, 5000, 1 << 20}[random.IntN(4)]
		r := NewReader(sourceFunc(func(p []byte) (int, error) { return stream.Read(p[:min(len(p), 1+random.IntN(most))]) }))
		var h RequestHead
		for _, m := range sent {
			if err := r.Wait(); err != nil {
				t.Fatal(err)
			}
			if err := r.ReadRequest(&h); err != nil {
				t.Fatal(err)
			}
			body, err := all(r.Body(h.Framing, h.Length))
			if err != nil || body != m.body {
				t.Fatalf("round %d: body of %s: %d bytes, want %d, %v", round, m.id, len(body), len(m.body), err)
			}
			if string(h.Target) != m.id || string(h.Fields[1].Value) != m.pad || string(h.Host) != "a.test" {
				t.Fatalf("round %d: the head of %s changed while its body was read", round, m.id)
			}
		}
		if err := r.Wait(); err != io.EOF {
			t.Fatalf("round %d: at the end: %v", round, err)
		}
	}
}

func TestFramingNames(t *testing.T) {
	for f, want := range map[Framing]string{NoBody: "none", Length: "length", Chunked: "chunked", UntilClose: "until-close", 9: "unknown"} {
		if f.String() != want {
			t.Errorf("%d is %q, want %q", f, f, want)
		}
	}
}
