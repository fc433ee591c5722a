package proxy

import (
	"net/http"
	"net/url"
)

// largeHeads is a connection as its reader's http1.Allowance.
type largeHeads conn

func (h *largeHeads) Take(n int) bool { return h.s.heads.take(h.flow.Client.Addr(), int64(n)) }

func (h *largeHeads) Give(n int) {
	if n > 0 {
		h.s.heads.give(h.flow.Client.Addr(), int64(n))
	}
}

// A ClientHello of an honest client has two KiB or three. crypto/tls takes 64 KiB in a
// buffer that it does not give back, and so does a tunnel that is to be spliced.
const (
	smallHello  = 8 << 10
	helloCopies = 2 // as a buffer that has doubled
)

// greets counts n more bytes of a handshake, which hold their room until the
// connection ends.
func (c *conn) greets(n int) error {
	c.hello += n
	if c.hello <= smallHello {
		return nil
	}
	more := helloCopies*c.hello - c.helloRoom
	if !(*largeHeads)(c).Take(more) {
		c.helloRefused = &refusal{
			status: 503, reason: "too_many_heads", full: true,
			detail: "as many large ClientHellos and request heads as the engine may hold are there; one below 8 KiB passes",
		}
		return c.helloRefused
	}
	c.helloRoom += more
	return nil
}

// bodyPages is a connection as the http1.Allowance of its requests' bodies.
type bodyPages conn

func (b *bodyPages) Take(n int) bool { return b.s.uploads.take(b.flow.Client.Addr(), int64(n)) }
func (b *bodyPages) Give(n int)      { b.s.uploads.give(b.flow.Client.Addr(), int64(n)) }

// answerHeads is an exchange as the http1.Allowance of its answer's large head. That
// passes whole or not at all, so bodies, which do with less, do not take its room.
type answerHeads exchange

func (a *answerHeads) Take(n int) bool { return a.s.replies.take(a.c.principalID, int64(n)) }
func (a *answerHeads) Give(n int)      { a.s.replies.give(a.c.principalID, int64(n)) }

// answerPages is an exchange as the http1.Allowance of what its origin answers, and
// of what its own pieces are read into.
type answerPages exchange

func (a *answerPages) Take(n int) bool { return a.s.answers.take(a.c.principalID, int64(n)) }
func (a *answerPages) Give(n int)      { a.s.answers.give(a.c.principalID, int64(n)) }

// piece returns what is read into: as much as is worth it where there is room, and
// scraps else.
func (a *answerPages) piece() *[]byte {
	pool := &scraps
	if a.Take(h2Piece) {
		pool = &pieces
	}
	p, _ := pool.Get().(*[]byte)
	return p
}

// put gives back what piece returned.
func (a *answerPages) put(p *[]byte) {
	if len(*p) < h2Piece {
		scraps.Put(p)
		return
	}
	pieces.Put(p)
	a.Give(h2Piece)
}

const (
	smallHead = 4 << 10 // as http1's page: a head that fits asks nobody

	// headCopies is how often a head over HTTP/2 is held while its request is under
	// way: as net/http has it, in its canonical form, and on its way to the origin.
	headCopies = 3
)

// takeHead takes the room of a head over HTTP/2 that is larger than a small page, and
// returns how much that is.
func (c *conn) takeHead(r *http.Request) (n int, ok bool) {
	n = len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	if n *= headCopies; n <= headCopies*smallHead {
		return 0, true
	}
	if !(*largeHeads)(c).Take(n) {
		return 0, false
	}
	return n, true
}

// forgetHead lets go of a head that net/http keeps for as long as the client does not
// take the end of the answer. It needs the method still.
func forgetHead(r *http.Request) {
	clear(r.Header)
	r.URL, r.RequestURI, r.Host = new(url.URL), "", ""
}
