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
