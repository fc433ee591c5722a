package proxy

import (
	"net/http"
	"net/url"
)

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
	if !c.heads.Take(more) {
		c.helloRefused = &refusal{
			status: 503, reason: "too_many_heads", full: true,
			detail: "as many large ClientHellos and request heads as the engine may hold are there; one below 8 KiB passes",
		}
		return c.helloRefused
	}
	c.helloRoom += more
	return nil
}

// takePiece returns what is read into: as much as is worth it where there is room, and
// scraps else.
func takePiece(r *room[string]) *[]byte {
	pool := &scraps
	if r.Take(h2Piece) {
		pool = &pieces
	}
	p, _ := pool.Get().(*[]byte)
	return p
}

// givePiece gives back what takePiece returned.
func givePiece(r *room[string], p *[]byte) {
	if len(*p) < h2Piece {
		scraps.Put(p)
		return
	}
	pieces.Put(p)
	r.Give(h2Piece)
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
	if !c.heads.Take(n) {
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
