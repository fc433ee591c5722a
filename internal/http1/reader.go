package http1

import (
	"io"
	"sync/atomic"
)

// Limits on what one message may make the engine hold. The head's and the
// trailers' deadlines are the caller's, on the connection.
const (
	MaxHead          = 64 << 10 // bytes of a head, first byte to empty line
	MaxFields        = 200      // fields in a head
	MaxMethod        = 64       // bytes of a method
	MaxTarget        = 32 << 10 // bytes of a request target
	MaxChunkLine     = 4 << 10  // bytes of the line with a chunk's size, its extension included, up to its CRLF
	MaxExtensions    = 8 << 10  // bytes of all chunk extensions in one body
	MaxTrailer       = 8 << 10  // bytes of a trailer section
	MaxTrailerFields = 64
)

const (
	// minRead is the least room worth a read: below it, what is unread moves to
	// the front of its page, or to a larger page.
	minRead = 512
	// maxEmptyReads is how often a source may return nothing without an error.
	maxEmptyReads = 100
)

// Field is one line of a head or of trailers. Both slices alias the Reader's page.
type Field struct {
	Name  []byte // as received
	Value []byte // without surrounding white space
}

// Framing is how the end of a message's body is known.
type Framing uint8

const (
	NoBody     Framing = iota // there is none
	Length                    // Content-Length says
	Chunked                   // the last chunk says
	UntilClose                // the end of the connection says; responses only
)

func (f Framing) String() string {
	switch f {
	case NoBody:
		return "none"
	case Length:
		return "length"
	case Chunked:
		return "chunked"
	case UntilClose:
		return "until-close"
	}
	return "unknown"
}

// Reader reads the messages of one direction of one connection. It is used by
// one goroutine at a time and must not be copied. See the package comment for
// how long what it returns is valid.
type Reader struct {
	src     io.Reader
	pending error // came with bytes; returned by the read after them

	// page.data[pos:end] is read and not consumed. page.data[:pin] is a head that
	// somebody still looks at; reads and moves stay behind it.
	page          *page
	pin, pos, end int

	// held is the page of the head while its body is read through another page;
	// heldPin is what pin was in it.
	held    *page
	heldPin int

	large Allowance // for heads that a small page does not hold; nil: there is room for all
	taken int       // bytes of it

	wide Allowance            // for large pages of bodies; nil: there is room for all
	roam atomic.Pointer[page] // the page that was taken of it

	lastRead int  // bytes of the latest read
	filled   bool // the latest read filled all the room it was given

	response bool // the latest head was a response's
	owed     bool // it announced a body
	body     Body
	one      [1]byte // what Wait reads into
}

// Allowance bounds what the heads of many connections, or their bodies, hold beyond
// a small page (4 KiB). It is safe for concurrent use.
type Allowance interface {
	Take(bytes int) bool // false: a head that wants them is refused with ErrNoRoom, a body is read in small pieces
	Give(bytes int)
}

// NewReader returns a Reader of src. A src that returns both bytes and an error
// has the error reported after the bytes.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// Reset makes r read src as if it were new. What was unread is gone.
func (r *Reader) Reset(src io.Reader) {
	r.pos, r.end = 0, 0
	r.Release()
	r.Close()
	clear(r.body.trailers[:cap(r.body.trailers)])
	*r = Reader{src: src, large: r.large, wide: r.wide, body: Body{trailers: r.body.trailers[:0]}}
}

// Wait blocks until at least one byte of the next message is there. It is for
// the time between messages: with nothing buffered it first gives every page
// back, so that an idle connection costs none, and what aliased them is invalid.
// io.EOF means that the peer closed between messages.
func (r *Reader) Wait() error {
	if r.pos < r.end {
		return nil
	}
	r.Release()
	if _, err := r.readSource(r.one[:]); err != nil {
		return err
	}
	r.page = getPage(smallPage)
	r.page.data[0] = r.one[0]
	r.end = 1
	return nil
}

// Buffered returns what was read from the source and not consumed: the first
// bytes of a tunnel, the next request, or the surplus after a response, which
// bars its connection from being used again. Valid until the next call.
func (r *Reader) Buffered() []byte {
	if r.page == nil {
		return nil
	}
	return r.page.data[r.pos:r.end:r.end]
}

// Discard consumes the first n of the buffered bytes, all of them if there are fewer.
func (r *Reader) Discard(n int) { r.pos += max(0, min(n, r.end-r.pos)) }

// Release gives back every page that holds nothing unread. All aliases of heads,
// fields and body bytes become invalid.
func (r *Reader) Release() {
	r.drop(r.held)
	r.held = nil
	r.pin, r.heldPin = 0, 0
	if r.pos == r.end {
		r.drop(r.page)
		r.page = nil
		r.pos, r.end = 0, 0
		r.Close()
	}
}

// Bound has heads that a small page does not hold take their room from a, until
// the next head begins or their page is given back. It is called before anything
// is read.
func (r *Reader) Bound(a Allowance) { r.large = a }

// BoundBodies has bodies take the large pages through which they are read from a.
// Where there is no room they are read in pieces of 4 KiB. It is called while no body
// is read.
func (r *Reader) BoundBodies(a Allowance) { r.wide = a }

// Close gives back what the Reader has of its Allowances. It is for the end of a
// connection, and looks at no page: somebody may still read a body through one.
func (r *Reader) Close() {
	r.closeHead()
	r.giveWide(r.roam.Load())
}

// closeHead gives back what the latest head took.
func (r *Reader) closeHead() {
	if r.taken > 0 {
		r.large.Give(r.taken)
		r.taken = 0
	}
}

// giveWide gives back what p took, if it was taken for a body.
func (r *Reader) giveWide(p *page) {
	if p != nil && r.roam.CompareAndSwap(p, nil) {
		r.wide.Give(largePage)
	}
}

// drop gives a page back.
func (r *Reader) drop(p *page) {
	r.giveWide(p)
	putPage(p)
}

// bodyPage returns a page to read a body through, where the one that there is has too
// little room; nil: it has to do. What is unread fits it. A head that came in the page
// of the body before it keeps what that has taken, and there is no second one.
func (r *Reader) bodyPage() *page {
	if r.wide == nil || r.roam.Load() == nil && r.wide.Take(largePage) {
		p := getPage(largePage)
		if r.wide != nil {
			r.roam.Store(p)
		}
		return p
	}
	if len(r.page.data)-r.end >= minRead {
		return nil
	}
	return getPage(pageSize(r.end - r.pos + minRead))
}

// take is called before a head waits in a page of n bytes for more of itself.
func (r *Reader) take(n int) bool {
	more := n - r.taken
	if r.large == nil || more <= 0 {
		return true
	}
	if !r.large.Take(more) {
		return false
	}
	r.taken = n
	return true
}

// readSource reads at least one byte into p. It never waits for more than the
// source's first answer.
func (r *Reader) readSource(p []byte) (int, error) {
	if err := r.pending; err != nil {
		r.pending = nil
		return 0, err
	}
	for range maxEmptyReads {
		n, err := r.src.Read(p)
		if n > 0 {
			r.pending = err
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// readMore reads once more behind what is unread. There must be room.
func (r *Reader) readMore() error {
	room := r.page.data[r.end:]
	n, err := r.readSource(room)
	r.end += n
	r.lastRead, r.filled = n, n == len(room)
	return err
}

// compact moves what is unread to the front of its page, behind the pinned head.
func (r *Reader) compact() {
	r.end = r.pin + copy(r.page.data[r.pin:], r.page.data[r.pos:r.end])
	r.pos = r.pin
}

// moveTo carries what is unread over to the front of to. The page it leaves is
// the caller's to keep or to give back.
func (r *Reader) moveTo(to *page) (left *page) {
	left = r.page
	if left != nil {
		r.end = copy(to.data, left.data[r.pos:r.end])
	}
	r.page, r.pin, r.pos = to, 0, 0
	return left
}

// beginHead ends the validity of the head before. A large page that a body
// leaves behind is exchanged for a small one if what follows fits it well.
func (r *Reader) beginHead() error {
	if r.owed && r.body.state != bodyDone {
		return ErrBodyUnread
	}
	r.owed = false
	r.body.state = bodyNone
	r.drop(r.held)
	r.held, r.pin = nil, 0
	unread := r.end - r.pos
	if unread == 0 {
		r.pos, r.end = 0, 0
	}
	if r.page == nil || len(r.page.data) > smallPage && unread <= smallPage/2 {
		r.drop(r.moveTo(getPage(smallPage)))
	}
	if len(r.page.data) == smallPage {
		r.closeHead()
	}
	return nil
}

// fillHead reads more of a head that is not whole yet. full means that it is
// larger than a head may be.
func (r *Reader) fillHead() (full bool, err error) {
	if len(r.page.data)-r.end < minRead && r.pos > 0 {
		r.compact()
	}
	if r.end == len(r.page.data) {
		if r.end == MaxHead {
			return true, nil
		}
		to := pageSize(r.end + 1)
		if !r.take(to) {
			return false, ErrNoRoom
		}
		r.drop(r.moveTo(getPage(to)))
	} else if n := len(r.page.data); n > smallPage && !r.take(n) { // the page of a body before it
		return false, ErrNoRoom
	}
	return false, r.readMore()
}

// fillBody reads more of a body of which want bytes are known to be still to
// come, or minRead where that is not known. It picks the page: behind the head
// while there is the room, a large one when the body or the pace of it is more
// than that, and behind the head again when a stream has gone quiet, so that ten
// thousand of them do not hold 64 KiB each.
func (r *Reader) fillBody(want int64) error {
	if r.page == nil { // released while a body was read
		r.page = getPage(smallPage)
	}
	if r.pos == r.end {
		quiet := r.held != nil && r.lastRead < minRead
		if quiet && want <= int64(len(r.held.data)-r.heldPin) {
			r.drop(r.page)
			r.page, r.pin, r.held = r.held, r.heldPin, nil
		}
		r.pos, r.end = r.pin, r.pin
	} else if len(r.page.data)-r.end < minRead {
		r.compact()
	}
	need := min(want, middlePage)
	if r.filled {
		need = middlePage
	}
	if (r.held == nil || len(r.page.data) < largePage) && int64(len(r.page.data)-r.end) < need {
		r.widen()
	}
	return r.readMore()
}

// widen goes on in a larger page, if there is one to be had. The head keeps the first.
func (r *Reader) widen() {
	to := r.bodyPage()
	switch {
	case to == nil:
	case r.held == nil:
		r.heldPin = r.pin
		r.held = r.moveTo(to)
	default:
		r.drop(r.moveTo(to))
	}
}
