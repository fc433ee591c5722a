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
