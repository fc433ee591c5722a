package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func chunked(body string) string {
	return "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n" + body
}

func TestS10ChunkSizes(t *testing.T) {
	for _, body := range []string{
		"0x3\r\nabc\r\n", "+3\r\nabc\r\n", "-3\r\n", "3 \r\nabc\r\n", " 3\r\nabc\r\n", "\t3\r\nabc\r\n", "3\t\r\nabc\r\n", "0_2e\r\n", "\r\n", "\n", ";a\r\n", "g\r\n",
		"00000000000000003\r\nabc\r\n", "10000000000000000\r\n", "8000000000000000\r\n", "ffffffffffffffff\r\n",
		"3\nabc\r\n", "3\rabc\r\n", "3\r\r\nabc\r\n", "3 ;a=b\r\nabc\r\n", "3;a\nb\r\nabc\r\n", "3;a\rb\r\nabc\r\n", "3;\x00\r\nabc\r\n", "3;\x7f\r\nabc\r\n",
		"3\r\nabcd\r\n", "3\r\nabc\n", "3\r\nabc\r\r\n", "3\r\nab\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "\xff\r\n", "0,\r\n\r\n",
		"3;" + strings.Repeat("x", MaxChunkLine) + "\r\nabc\r\n0\r\n\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", MaxExtensions/1000+1) + "0\r\n\r\n",
	} {
		refused(t, chunked(body), ReasonChunk, 400)
	}
	for body, want := range map[string]string{
		"0\r\n\r\n":             "",
		"3\r\nabc\r\n0\r\n\r\n": "abc",
		"0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n":                       "abc",
		"A\r\n0123456789\r\nb\r\nabcdefghijk\r\n0\r\n\r\n":                          "0123456789abcdefghijk",
		"3;a=b; c=\"d \t;\xc3\xa9\"\r\nabc\r\n0;last\r\n\r\n":                       "abc",
		"4\r\n\r\n\r\n\r\n0\r\n\r\n":                                                "\r\n\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 50)+"\r\na\r\n", 100) + "0\r\n\r\n": strings.Repeat("a", 100),
	} {
		accepted(t, chunked(body), want)
	}
	// The error stays, and nothing of the connection is read as a head.
	r := NewReader(strings.NewReader(chunked("zz\r\n" + with(""))))
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	b := r.Body(h.Framing, h.Length)
	for range 2 {
		_, err := b.Next()
		wantError(t, "zz", err, ReasonChunk, 400)
	}
	if err := r.ReadRequest(&h); err != ErrBodyUnread || b.Done() || !b.Buffered() {
		t.Errorf("after a bad chunk: next head %v, done %v, buffered %v", err, b.Done(), b.Buffered())
	}
}

// A size that cannot become one is refused before its line ends.
func TestS10BadSizeDoesNotWaitForItsLine(t *testing.T) {
	for _, sent := range []string{"x", "3 ", "0x", "3\n", "3\rx", "00000000000000000", "ffffffffffffffff", "3\r\nabcX", "3;\n", "3;" + strings.Repeat("x", MaxChunkLine)} {
		r := NewReader(io.MultiReader(strings.NewReader(chunked(sent)), blocked{t}))
		var h RequestHead
		if err := r.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		_, err := all(r.Body(h.Framing, h.Length))
		wantError(t, fmt.Sprintf("%.40q", sent), err, ReasonChunk, 400)
	}
}

func TestS11BodyCutAtEveryByte(t *testing.T) {
	for _, body := range []string{
		"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\n123456789",
		chunked("3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"),
	} {
		head := strings.Index(body, "\r\n\r\n") + 4
		_, whole, _, err := read(t, arrivals["whole"], body)
		if err != nil {
			t.Fatal(err)
		}
		for n := head; n < len(body); n++ {
			for how, arrive := range arrivals {
				_, got, b, err := read(t, arrive, body[:n])
				if err != io.ErrUnexpectedEOF || b.Done() || b.Trailers() != nil || !strings.HasPrefix(whole, got) {
					t.Errorf("%q cut after %d bytes, %s: got %q, %v, done %v", body[head:], n-head, how, got, err, b.Done())
				}
				if _, again := b.Next(); again != io.ErrUnexpectedEOF || !b.Buffered() {
					t.Errorf("after the cut: %v", again)
				}
			}
		}
	}
}

// What goes beyond the announced length is the next message, never this one's.
func TestS11LongerThanDeclared(t *testing.T) {
	r := NewReader(strings.NewReader(with("Content-Length: 3\r\n") + "abcdef"))
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	if body, err := all(r.Body(h.Framing, h.Length)); body != "abc" || err != nil || string(r.Buffered()) != "def" {
		t.Errorf("got %q, %v, surplus %q", body, err, r.Buffered())
	}
}

// A deadline is not an end: the caller may set another and go on.
func TestSourceErrorsInABodyDoNotStay(t *testing.T) {
	slow := errors.New("deadline")
	r := NewReader(io.MultiReader(strings.NewReader(with("Content-Length: 4\r\n")+"ab"), &once{err: slow}, strings.NewReader("cd")))
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	b := r.Body(h.Framing, h.Length)
	if got, err := all(b); got != "ab" || err != slow {
		t.Fatalf("got %q, %v", got, err)
	}
	if got, err := all(b); got != "cd" || err != nil {
		t.Errorf("after the deadline: got %q, %v", got, err)
	}
}

type once struct{ err error }

func (o *once) Read([]byte) (int, error) {
	err := o.err
	o.err = io.EOF
	return 0, err
}

func TestS18ForbiddenTrailers(t *testing.T) {
	for _, name := range []string{
		"X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Host", "X_Forwarded_Host", "Content_Type", "If_Match",
		"Content-Length", "Host", "Authorization", "Cookie", "Transfer-Encoding", "Trailer", "Set-Cookie", "Set-Cookie2", "Proxy-Authorization", "Proxy-Authenticate",
		"Proxy-Anything", "Connection", "Keep-Alive", "TE", "Upgrade", "HTTP2-Settings", "Expect", "Range", "Content-Type", "Content-Encoding", "Content-Range",
		"Cache-Control", "Max-Forwards", "Pragma", "WWW-Authenticate", "If-Match", "If-None-Match", "Forwarded", "X-Forwarded-For", "Content_Length", "Transfer_Encoding",
	} {
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			refused(t, chunked("1\r\na\r\n0\r\nOk: v\r\n"+spelled+": v\r\n\r\n"), ReasonTrailer, 400)
		}
	}
	for _, line := range []string{" A: b", "A : b", ": b", "A", "A: \x00", "A: b\nC: d", "A: b\r\n c", "A: b\rC: d"} {
		refused(t, chunked("0\r\n"+line+"\r\n\r\n"), ReasonTrailer, 400)
	}
	refused(t, chunked("0\r\n"+strings.Repeat("A: b\r\n", MaxTrailerFields+1)+"\r\n"), ReasonTrailer, 400)
	refused(t, chunked("0\r\nA: "+strings.Repeat("x", MaxTrailer)+"\r\n\r\n"), ReasonTrailer, 400)
	refused(t, chunked("0\r\n\n"), ReasonTrailer, 400)
}

func TestTrailers(t *testing.T) {
	for how, arrive := range arrivals {
		_, body, b, err := read(t, arrive, chunked("3\r\nabc\r\n0\r\ngrpc-status: 0\r\nGrpc-Message:\r\nIfx: 1\r\nTime: 2\r\n\r\n"))
		if err != nil || body != "abc" {
			t.Fatalf("%s: got %q, %v", how, body, err)
		}
		if got := fmt.Sprintf("%s", b.Trailers()); got != "[{grpc-status 0} {Grpc-Message } {Ifx 1} {Time 2}]" {
			t.Errorf("%s: trailers %s", how, got)
		}
	}
	accepted(t, chunked("0\r\n"+strings.Repeat("A: b\r\n", MaxTrailerFields)+"\r\n"), "")
	if _, _, b, _ := read(t, arrivals["whole"], with("")); b.Trailers() != nil {
		t.Error("trailers without a chunked body")
	}
}

// gate hands out one piece a read and fails the test if asked while closed.
type gate struct {
	t      *testing.T
	pieces []string
	open   bool
}

func (g *gate) Read(p []byte) (int, error) {
	if !g.open {
		g.t.Error("read from the connection although Buffered said true")
	}
	if len(g.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, g.pieces[0])
	if g.pieces[0] = g.pieces[0][n:]; g.pieces[0] == "" {
		g.pieces = g.pieces[1:]
	}
	return n, nil
}

// Buffered is exact at every cut of every framing, and what Next returned stays
// valid while it says true.
func TestBufferedIsExact(t *testing.T) {
	stream := chunked("3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: v\r\n\r\n")
	for first := strings.Index(stream, "\r\n\r\n") + 4; first < len(stream); first++ {
		for second := first; second < len(stream); second++ {
			g := &gate{t: t, pieces: []string{stream[:first], stream[first:second], stream[second:]}, open: true}
			if first == second {
				g.pieces = []string{stream[:first], stream[first:]}
			}
			r := NewReader(g)
			var h RequestHead
			if err := r.ReadRequest(&h); err != nil {
				t.Fatal(err)
			}
			g.open = false
			b := r.Body(h.Framing, h.Length)
			var kept [][]byte
			var got []byte
			for {
				if !b.Buffered() {
					got = append(got, bytes.Join(kept, nil)...)
					kept = kept[:0]
					g.open = true
					before := len(g.pieces)
					p, err := b.Next()
					if len(g.pieces) == before {
						t.Fatalf("%d, %d: Buffered said false but nothing was read", first, second)
					}
					if err != nil {
						break
					}
					kept = append(kept, p)
					g.open = false
					continue
				}
				p, err := b.Next()
				if err != nil {
					break
				}
				kept = append(kept, p)
			}
			got = append(got, bytes.Join(kept, nil)...)
			if string(got) != "abcde" || !b.Done() || len(b.Trailers()) != 1 {
				t.Fatalf("%d, %d: got %q, done %v", first, second, got, b.Done())
			}
		}
	}
}

func TestBodiesThatAreNone(t *testing.T) {
	r := NewReader(blocked{t})
	for _, b := range []*Body{r.Body(NoBody, 0), r.Body(Length, 0), r.Body(NoBody, -1)} {
		if p, err := b.Next(); p != nil || err != io.EOF || !b.Done() || !b.Buffered() {
			t.Errorf("got %q, %v", p, err)
		}
	}
	for _, b := range []*Body{r.Body(Length, -1), r.Body(9, 0)} {
		if p, err := b.Next(); p != nil || err != errBodyFraming || b.Done() {
			t.Errorf("a framing that is none: got %q, %v", p, err)
		}
	}
	var b Body
	if b.Done() {
		t.Error("a body that was never begun is done")
	}
}

// large is a source of n bytes in reads of at most most bytes.
type large struct {
	n, most int
	at      int
	reads   []int // the room each read was given
}

func (l *large) Read(p []byte) (int, error) {
	l.reads = append(l.reads, len(p))
	n := min(len(p), l.most, l.n-l.at)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range n {
		p[i] = pattern(l.at + i)
	}
	l.at += n
	return n, nil
}

func pattern(i int) byte { return byte(i*7 + i>>8) }

// A large body is read in large pieces, whatever frames it.
func TestLargeBodies(t *testing.T) {
	const size = 1 << 20
	for _, most := range []int{100, 4 << 10, 16 << 10, 1 << 20} {
		for _, framing := range []string{"Content-Length: 1048576\r\n", ""} {
			src := &large{n: size, most: most}
			r := NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nX: marker\r\n"+framing+"\r\n"), src))
			var h ResponseHead
			if err := r.ReadResponse(&h, nil); err != nil {
				t.Fatal(err)
			}
			b := r.Body(h.Framing, h.Length)
			at := 0
			for {
				p, err := b.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				for i, c := range p {
					if c != pattern(at+i) {
						t.Fatalf("byte %d is wrong", at+i)
					}
				}
				at += len(p)
			}
			if at != size || !b.Done() {
				t.Errorf("got %d bytes, done %v", at, b.Done())
			}
			if string(h.Fields[0].Value) != "marker" {
				t.Errorf("the head became %q", h.Fields[0].Value)
			}
			big := 0
			for _, room := range src.reads {
				if room >= 16<<10 {
					big++
				}
			}
			if most >= 16<<10 && len(src.reads)-big > 3 {
				t.Errorf("%d of %d reads had less than 16 KiB of room", len(src.reads)-big, len(src.reads))
			}
		}
	}
}
