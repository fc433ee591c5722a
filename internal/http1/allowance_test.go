package http1

import (
	"errors"
	"strings"
	"testing"
)

// purse is an Allowance for one test.
type purse struct{ left, asked int }

func (p *purse) Take(n int) bool {
	p.asked++
	if n > p.left {
		return false
	}
	p.left -= n
	return true
}

func (p *purse) Give(n int) { p.left += n }

func TestLargeHeadsTakeTheirRoomFromAnAllowance(t *testing.T) {
	const all = 1 << 20
	field := func(n int) string { return with("X: " + strings.Repeat("x", n) + "\r\n") }
	for what, row := range map[string]struct {
		stream string
		takes  int  // after the last head
		asks   bool // … and before
	}{
		"heads of one page":           {strings.Repeat(with("Y: "+strings.Repeat("y", 1500)+"\r\n"), 8), 0, false},
		"a head of a middle page":     {field(6 << 10), middlePage, true},
		"a head of a large page":      {field(40 << 10), largePage, true},
		"a large head, then a small":  {field(40<<10) + with(""), 0, true},
		"a large head, then as large": {field(40<<10) + field(40<<10), largePage, true},
		"heads in the page of a body": {with("Content-Length: 70000\r\n") + strings.Repeat("b", 70000) + strings.Repeat(with(""), 200), 0, false},
	} {
		t.Run(what, func(t *testing.T) {
			p := &purse{left: all}
			r := NewReader(strings.NewReader(row.stream))
			r.Bound(p)
			var h RequestHead
			for n := strings.Count(row.stream, "HTTP/1.1"); n > 0; n-- {
				if err := r.ReadRequest(&h); err != nil {
					t.Fatal(err)
				}
				for body := r.Body(h.Framing, h.Length); ; {
					if _, err := body.Next(); err != nil {
						break
					}
				}
			}
			if all-p.left != row.takes || p.asked > 0 != row.asks {
				t.Errorf("%d taken, want %d; asked %d times", all-p.left, row.takes, p.asked)
			}
			r.Release()
			if p.left != all {
				t.Errorf("%d are not given back with the page", all-p.left)
			}
		})
	}
}

func TestAHeadThatFindsNoRoomIsRefused(t *testing.T) {
	unfinished := "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 60<<10)
	for what, end := range map[string]func(*Reader){
		"its connection ends":    (*Reader).Close,
		"its reader begins anew": func(r *Reader) { r.Reset(strings.NewReader("")) },
	} {
		p := &purse{left: middlePage}
		r := NewReader(strings.NewReader(unfinished))
		r.Bound(p)
		var h RequestHead
		if err := r.ReadRequest(&h); !errors.Is(err, ErrNoRoom) {
			t.Errorf("%v, want ErrNoRoom", err)
		}
		if r.Release(); p.left != 0 {
			t.Errorf("%d are given back while the head is held", p.left)
		}
		if end(r); p.left != middlePage {
			t.Errorf("%s: %d left, want all", what, p.left)
		}
	}
	// What a body leaves in its page and no end of a head is in.
	p := &purse{}
	r := NewReader(strings.NewReader(with("Content-Length: 70000\r\n") + strings.Repeat("b", 70000) + unfinished))
	r.Bound(p)
	var h RequestHead
	if err := r.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	for body := r.Body(h.Framing, h.Length); ; {
		if _, err := body.Next(); err != nil {
			break
		}
	}
	if err := r.ReadRequest(&h); !errors.Is(err, ErrNoRoom) {
		t.Errorf("behind a body: %v, want ErrNoRoom", err)
	}
}

// Whatever there is room for, a body is read to the same bytes, the head stays valid
// meanwhile, and all that was taken is given back.
func TestBodiesTakeLargePagesFromAnAllowance(t *testing.T) {
	const all = 1 << 20
	big := strings.Repeat("0123456789abcdef", 10_000)
	longest := "T: " + strings.Repeat("t", MaxTrailer-100) + "\r\n"
	filler := func(n int) string { return "Pad: " + strings.Repeat("p", n) + "\r\n" }
	for what, row := range map[string]struct{ head, body, want string }{
		"a length":                         {"Content-Length: 160000\r\n", big, big},
		"… behind a head of a page":        {filler(3900) + "Content-Length: 160000\r\n", big, big},
		"… behind a large head":            {filler(60<<10) + "Content-Length: 160000\r\n", big, big},
		"one chunk and a long trailer":     {"Transfer-Encoding: chunked\r\n", "27100\r\n" + big + "\r\n0\r\n" + longest + "\r\n", big},
		"… and a head of a page":           {filler(3900) + "Transfer-Encoding: chunked\r\n", "27100\r\n" + big + "\r\n0\r\n" + longest + "\r\n", big},
		"little chunks with extensions":    {"Transfer-Encoding: chunked\r\n", strings.Repeat("a;"+strings.Repeat("x", 30)+"\r\n0123456789\r\n", 200) + "0\r\n\r\n", strings.Repeat("0123456789", 200)},
		"a chunk line of the largest size": {filler(3000) + "Transfer-Encoding: chunked\r\n", "27100\r\n" + big + "\r\n1;" + strings.Repeat("x", MaxChunkLine-10) + "\r\na\r\n0\r\n\r\n", big + "a"},
	} {
		for how, pieces := range arrivals {
			for _, left := range []int{all, 0} {
				p := &purse{left: left}
				r := NewReader(pieces(strings.NewReader(with(row.head) + row.body + with("Next: 1\r\n"))))
				r.BoundBodies(p)
				var h RequestHead
				for n, want := range []string{row.want, ""} {
					if err := r.ReadRequest(&h); err != nil {
						t.Fatalf("%s, %s: head %d: %v", what, how, n+1, err)
					}
					if got := allOf(r, &h); got != want || string(h.Host) != "a.test" {
						t.Errorf("%s, %s, %d to take: body %d has %d bytes, want %d; host %q", what, how, left, n+1, len(got), len(want), h.Host)
					}
				}
				if left > 0 && p.asked == 0 && len(row.want) > largePage {
					t.Errorf("%s, %s: nothing was asked for", what, how)
				}
				if r.Release(); p.left != left {
					t.Errorf("%s, %s: %d of %d given back", what, how, p.left, left)
				}
			}
		}
	}
}

// A body that is not read to its end gives back what it took with its connection.
func TestABodyThatBreaksOffGivesBackItsPage(t *testing.T) {
	for what, end := range map[string]func(*Reader){
		"its connection ends":    (*Reader).Close,
		"its reader begins anew": func(r *Reader) { r.Reset(strings.NewReader("")) },
	} {
		p := &purse{left: largePage}
		r := NewReader(strings.NewReader(with("Content-Length: 300000\r\n") + strings.Repeat("b", 200_000)))
		r.BoundBodies(p)
		var h RequestHead
		if err := r.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		body := r.Body(h.Framing, h.Length)
		for p.left > 0 {
			if _, err := body.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if end(r); p.left != largePage {
			t.Errorf("%s: %d left, want all", what, p.left)
		}
		if r.Release(); p.left != largePage {
			t.Errorf("%s: %d left after a release, want all", what, p.left)
		}
	}
}

// A request that came with the end of a large body before it is read through what that
// body has taken, and nothing is taken a second time.
func TestABodyBehindAnotherInTheSamePageTakesNoSecond(t *testing.T) {
	const all = 1 << 20
	body := strings.Repeat("b", 100_000)
	one := with("Content-Length: 100000\r\n") + body
	p := &purse{left: all}
	r := NewReader(strings.NewReader(strings.Repeat(one, 5)))
	r.BoundBodies(p)
	var h RequestHead
	for n := range 5 {
		if err := r.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if got := allOf(r, &h); got != body || string(h.Host) != "a.test" {
			t.Errorf("body %d has %d bytes; host %q", n+1, len(got), h.Host)
		}
	}
	if r.Release(); p.left != all {
		t.Errorf("%d of %d given back", p.left, all)
	}
}

// allOf is the body behind h, as far as it can be read.
func allOf(r *Reader, h *RequestHead) string {
	var got strings.Builder
	for body := r.Body(h.Framing, h.Length); ; {
		piece, err := body.Next()
		if got.Write(piece); err != nil {
			return got.String()
		}
	}
}
