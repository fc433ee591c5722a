package http1

import (
	"bytes"
	"errors"
	"io"
	"math"
)

// Body reads the body that follows a head. It is part of its [Reader]: there is
// one at a time, and it aliases the Reader's page.
type Body struct {
	r        *Reader
	state    bodyState
	left     int64 // bytes to come of the body, or of this chunk
	ext      int   // bytes of chunk extensions so far
	trailers []Field
	err      error // how it ended, if not well or with io.EOF
}

type bodyState uint8

const (
	bodyNone bodyState = iota // no body was begun
	bodyDone
	bodyLength
	bodyUntilClose
	chunkSize    // before a line with a size
	chunkData    // inside of a chunk
	chunkEnd     // before the CRLF after a chunk
	chunkTrailer // after the last chunk
)

// Body returns the body that follows the head just read; f and length are that
// head's. The head stays valid while the body is read. A framing that is none,
// or that leaves out a body which the head announced, gives a Body that fails.
func (r *Reader) Body(f Framing, length int64) *Body {
	b := &r.body
	*b = Body{r: r, trailers: b.trailers[:0]}
	switch {
	case f == Length && length > 0:
		b.state, b.left = bodyLength, length
	case f == Chunked:
		b.state = chunkSize
	case f == UntilClose:
		b.state = bodyUntilClose
	case !r.owed && (f == NoBody || f == Length && length == 0):
		b.state = bodyDone
	default:
		b.err = errBodyFraming
	}
	return b
}

// Next returns the next decoded bytes as soon as there are any, without copying
// them. They are valid until the next call that has to read; as long as
// [Body.Buffered] says true, calling Next leaves those before valid too. At the
// end it returns nil and io.EOF; if the connection ended first,
// io.ErrUnexpectedEOF; for what is malformed, an [*Error]. After an error of the
// source such as a deadline, Next may be called again.
func (b *Body) Next() ([]byte, error) {
	for {
		p, err := b.step()
		if p != nil || err != nil {
			return p, err
		}
		err = b.r.fillBody(b.want())
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return nil, err
		case b.state == bodyUntilClose:
			b.state = bodyDone
		default:
			b.err = io.ErrUnexpectedEOF
		}
	}
}

// Trailers returns the fields after a chunked body, once Next has returned
// io.EOF. They are valid as long as the head is.
func (b *Body) Trailers() []Field {
	if b.state != bodyDone {
		return nil
	}
	return b.trailers
}

// Done reports whether the whole body was consumed, so that what follows in the
// connection is the next message.
func (b *Body) Done() bool { return b.state == bodyDone }

// Buffered reports whether Next returns without reading from the connection. It
// is exact: what is there is parsed to find out.
func (b *Body) Buffered() bool {
	if b.err != nil || b.r.pending != nil {
		return true
	}
	switch b.state {
	case bodyNone, bodyDone:
		return true
	case bodyLength, bodyUntilClose, chunkData:
		return b.r.pos < b.r.end
	case chunkSize, chunkEnd, chunkTrailer: // parsed below
	}
	body, pos := *b, b.r.pos
	p, err := b.step()
	*b, b.r.pos = body, pos
	return p != nil || err != nil
}

// step goes on with what is already there, without moving it. It returns bytes,
// or how the body ended, or neither when more has to be read.
func (b *Body) step() ([]byte, error) {
	for b.err == nil {
		window := b.r.Buffered()
		n := 0
		var bad *fault
		switch b.state {
		case bodyNone, bodyDone:
			return nil, io.EOF
		case bodyUntilClose, bodyLength, chunkData:
			return b.take(window), nil
		case chunkSize:
			n, bad = b.readSize(window)
		case chunkEnd:
			n, bad = b.readEnd(window)
		case chunkTrailer:
			n, bad = b.readTrailer(window)
		}
		if bad != nil {
			b.err = b.refuse(bad)
			break
		}
		if n == 0 {
			return nil, nil
		}
		b.r.pos += n
	}
	return nil, b.err
}

// take consumes the bytes of window that are the body's. nil if there are none.
func (b *Body) take(window []byte) []byte {
	if len(window) == 0 {
		return nil
	}
	if b.state == bodyUntilClose {
		b.r.pos = b.r.end
		return window
	}
	n := int(min(b.left, int64(len(window))))
	b.r.pos += n
	if b.left -= int64(n); b.left == 0 {
		if b.state == bodyLength {
			b.state = bodyDone
		} else {
			b.state = chunkEnd
		}
	}
	return window[:n:n]
}

// want is how much the next read is known to be good for.
func (b *Body) want() int64 {
	switch b.state {
	case bodyLength:
		return b.left
	case chunkData:
		return b.left + minRead
	default:
		return minRead
	}
}

func (b *Body) readSize(window []byte) (int, *fault) {
	line, size, ext, why := parseChunkLine(window)
	if why == "" && line == 0 && len(window) > MaxChunkLine {
		why = "the line is too long"
	}
	b.ext += ext
	if b.ext > MaxExtensions {
		why = "too many bytes of extensions"
	}
	if why != "" {
		return 0, faultf(ReasonChunk, 400, "chunk size: %s", why)
	}
	if line > 0 {
		b.left, b.state = size, chunkData
		if size == 0 {
			b.state = chunkTrailer
		}
	}
	return line, nil
}

func (b *Body) readEnd(window []byte) (int, *fault) {
	const crlf = "\r\n"
	n := min(len(window), len(crlf))
	if string(window[:n]) != crlf[:n] {
		return 0, faultf(ReasonChunk, 400, "a chunk is longer than its size: no CRLF after it")
	}
	if n < len(crlf) {
		return 0, nil
	}
	b.state = chunkSize
	return n, nil
}

// readTrailer reads the trailer section, which has to be there as a whole.
func (b *Body) readTrailer(window []byte) (int, *fault) {
	var s section
	n, bad := s.scan(window[:min(len(window), MaxTrailer)], MaxTrailerFields)
	if bad == nil && n == 0 && len(window) >= MaxTrailer {
		bad = faultf(ReasonTrailer, 400, "trailers larger than %d bytes", MaxTrailer)
	}
	fields := b.trailers[:0]
	for at := 0; bad == nil && at < n-2; {
		f, size := parseField(window[at:n])
		switch {
		case size == 0:
			bad = faultf(ReasonTrailer, 400, "trailer %d: %s", len(fields)+1, describeField(window[at:n]))
		case ForbiddenTrailer(f.Name):
			bad = faultf(ReasonTrailer, 400, "%s is not accepted as a trailer", quoted(f.Name))
		}
		fields = append(fields, f)
		at += size
	}
	if bad != nil {
		bad.reason, bad.status = ReasonTrailer, 400 // whatever scan called it
		return 0, bad
	}
	if n > 0 {
		b.trailers, b.state = fields, bodyDone
	}
	return n, nil
}

// refuse turns a fault in a body into the error for the side that is read.
func (b *Body) refuse(f *fault) error {
	status := f.status
	if b.r.response {
		status = 502
	}
	return &Error{Reason: f.reason, Status: status, Detail: f.detail}
}

// parseChunkLine reads the line before a chunk. line is its length with CRLF, 0
// if it is not whole; ext the length of its extension. What can be refused
// before the line is whole is.
func parseChunkLine(window []byte) (line int, size int64, ext int, why string) {
	var v uint64
	i := 0
	for ; i < len(window); i++ {
		d, ok := unhex(window[i])
		if !ok {
			break
		}
		if i == 16 {
			return 0, 0, 0, "more than 16 digits"
		}
		v = v<<4 | uint64(d)
	}
	if v > math.MaxInt64 {
		return 0, 0, 0, "2^63 or more"
	}
	if i == len(window) {
		return 0, 0, 0, ""
	}
	if i == 0 {
		return 0, 0, 0, "no digit"
	}
	if window[i] == ';' {
		limited := window[:min(len(window), MaxChunkLine)]
		if ext = indexControl(limited[i:]); ext < 0 {
			return 0, 0, 0, ""
		}
		i += ext
	}
	if rest := window[i:]; rest[0] == '\r' && len(rest) == 1 {
		return 0, 0, 0, ""
	}
	if !bytes.HasPrefix(window[i:], []byte("\r\n")) {
		return 0, 0, 0, "neither CRLF nor an extension after the digits"
	}
	return i + 2, int64(v), ext, ""
}

func unhex(c byte) (byte, bool) {
	if d := c - '0'; d <= 9 {
		return d, true
	}
	if d := lower(c) - 'a'; d < 6 {
		return d + 10, true
	}
	return 0, false
}

// ForbiddenTrailer reports whether a field means something only before the body
// (RFC 9110 section 6.5.1): framing, routing, authentication, cookies, conditions,
// the content's format, another method or target, and whatever else a server that
// merges trailers into the head would take for what was judged there. '_' counts
// as '-', as it does to CGI. It is the one deny list, for HTTP/2 as well.
func ForbiddenTrailer(name []byte) bool {
	var buf [len("x-http-method-override")]byte // longer than what stands below
	n := copy(buf[:], name)
	for i, c := range buf[:n] {
		if buf[i] = lower(c); c == '_' {
			buf[i] = '-'
		}
	}
	folded := buf[:n]
	for _, prefix := range [...]string{
		"proxy-", "if-", "x-forwarded-", "x-http-method", "x-http-host", "x-original-", "x-rewrite-", "x-override-", "sec-websocket-",
	} {
		if bytes.HasPrefix(folded, []byte(prefix)) {
			return true
		}
	}
	if n < len(name) {
		return false
	}
	switch string(folded) {
	case "host", "range", "cookie", "expect", "pragma", "forwarded", "set-cookie", "set-cookie2", "content-type", "max-forwards",
		"authorization", "cache-control", "content-range", "content-length", "content-encoding", "www-authenticate", "transfer-encoding",
		"x-method-override", "x-host", "content-location", "user-agent", "referer", "origin", "from":
		return true
	}
	return HopByHop(folded)
}
