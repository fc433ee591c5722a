package http1

import (
	"bytes"
	"errors"
	"io"
)

// RequestHead is a request up to its empty line. It is reused between requests;
// its slices alias the Reader.
type RequestHead struct {
	Method, Target []byte
	Minor          uint8   // HTTP/1.Minor: 0 or 1
	Fields         []Field // all of them, in order, hop-by-hop ones too
	Host           []byte  // the one Host value, possibly empty; nil if HTTP/1.0 sent none
	Framing        Framing // never UntilClose
	Length         int64   // of the body; -1 when Chunked
	KeepAlive      bool    // the client wants the connection to stay (RFC 9112 section 9.3)
	ExpectContinue bool    // HTTP/1.1 with Expect: 100-continue
	Upgrade        []byte  // value of Upgrade if Connection names it on HTTP/1.1, else nil
	Size           int     // bytes of the head on the wire
}

// Reset empties h, keeping its memory. Between requests it lets go of the page
// that h aliases, which may have been given back.
func (h *RequestHead) Reset() {
	clear(h.Fields[:cap(h.Fields)])
	*h = RequestHead{Fields: h.Fields[:0]}
}

// ReadRequest reads the next request head into h. It returns io.EOF if the peer
// closed before any byte of it, io.ErrUnexpectedEOF if it closed inside, an
// [*Error] for what is refused, or the source's error. A head that cannot become
// a request is refused as early as that shows, not when its end comes. After an
// error h is empty.
func (r *Reader) ReadRequest(h *RequestHead) error {
	*h = RequestHead{Fields: h.Fields[:0]}
	r.response = false
	head, first, err := r.readHead()
	if err != nil {
		return err
	}
	method, target, minor, bad := parseRequestLine(head[:first-2])
	if bad != nil {
		return r.refuse(bad)
	}
	var m message
	fields, bad := m.parseFields(h.Fields[:0], head[first:])
	if bad == nil {
		bad = m.checkRequest(minor)
	}
	if bad != nil {
		return r.refuse(bad)
	}
	*h = RequestHead{
		Method: method, Target: target, Minor: minor,
		Fields:         fields,
		Host:           m.host,
		Framing:        NoBody,
		KeepAlive:      !m.close && (minor == 1 || m.keepAlive),
		ExpectContinue: m.expects > 0 && minor == 1,
		Size:           len(head),
	}
	if minor == 1 && m.upgradeOption {
		h.Upgrade = m.upgrade
	}
	switch {
	case m.codings > 0:
		h.Framing, h.Length = Chunked, -1
	case m.lengths > 0:
		h.Framing, h.Length = Length, m.length
	}
	r.endHead(len(head), h.Framing, h.Length)
	return nil
}

// endHead consumes a head of n bytes and pins it until the next one.
func (r *Reader) endHead(n int, f Framing, length int64) {
	r.pos += n
	r.pin = r.pos
	r.owed = f == Chunked || f == UntilClose || f == Length && length > 0
}

// readHead returns a whole head with its empty line, not yet consumed. All of
// its lines end in CRLF and are at most MaxFields+1; first is where the second begins.
func (r *Reader) readHead() (head []byte, first int, err error) {
	if err := r.beginHead(); err != nil {
		return nil, 0, err
	}
	var s section
	for {
		window := r.page.data[r.pos:r.end]
		from := s.next
		n, bad := s.scan(window, MaxFields+1)
		if bad == nil && n == 0 && len(window) > 0 {
			bad = r.checkStart(window, from, &s)
		}
		if n > 0 && s.lines == 0 {
			bad = faultf(ReasonRequestLine, 400, "an empty line before the first")
		}
		if bad != nil {
			return nil, 0, r.refuse(bad)
		}
		if n > 0 {
			return window[:n:n], s.first, nil
		}
		full, err := r.fillHead()
		if full {
			return nil, 0, r.refuse(faultf(ReasonHeadTooLarge, 431, "the head is larger than %d bytes", MaxHead))
		}
		if err != nil {
			if errors.Is(err, io.EOF) && r.pos < r.end {
				err = io.ErrUnexpectedEOF
			}
			return nil, 0, err
		}
	}
}

// checkStart looks at a head that is not whole: bytes of another protocol, such
// as a TLS record or the banner of SSH, never become one, and a peer that waits
// for an answer to them would hold the connection until its deadline. from is how
// far the scan before this one came; what is before it was looked at, but for a
// CR at its end.
func (r *Reader) checkStart(window []byte, from int, s *section) *fault {
	switch {
	case s.lines == 0 && r.response:
		const start = "HTTP/1."
		if n := min(len(window), len(start)); string(window[:n]) != start[:n] {
			return faultf(ReasonResponse, 502, "does not begin with HTTP/1")
		}
	case s.lines == 0:
		from = max(0, from-1)
		line := window[from:]
		if i := indexControl(line); i >= 0 && (line[i] != '\r' || i != len(line)-1) {
			return faultf(ReasonRequestLine, 400, "byte 0x%02x at offset %d of the request line", line[i], from+i)
		}
	case s.checked:
	case r.response:
		s.checked = true
		_, _, _, bad := parseStatusLine(window[:s.first-2])
		return bad
	default:
		s.checked = true
		_, _, _, bad := parseRequestLine(window[:s.first-2])
		return bad
	}
	return nil
}

// section is how far a run of lines that an empty line ends has been read. All
// positions are relative to the window's start, so the window may move.
type section struct {
	next    int  // where the search for the next LF goes on
	line    int  // where the unfinished line begins
	lines   int  // how many whole lines there are
	first   int  // where the second line begins
	checked bool // the first line was parsed while the rest was missing
}

// scan goes on through window and returns the section's length with the empty
// line, or 0 if more is needed. A first line that is empty ends the section at
// once: whether it may be is the caller's question.
func (s *section) scan(window []byte, maxLines int) (int, *fault) {
	for {
		i := bytes.IndexByte(window[s.next:], '\n')
		if i < 0 {
			s.next = len(window)
			return 0, nil
		}
		lf := s.next + i
		if lf == s.line || window[lf-1] != '\r' {
			return 0, faultf(ReasonHeader, 400, "line %d ends in a bare LF", s.lines+1)
		}
		s.next = lf + 1
		if lf-1 == s.line {
			return lf + 1, nil
		}
		s.line = lf + 1
		if s.lines++; s.lines == 1 {
			s.first = lf + 1
		}
		if s.lines > maxLines {
			return 0, faultf(ReasonTooManyFields, 431, "more than %d lines", maxLines)
		}
	}
}

// parseRequestLine splits a request line, which comes without its CRLF.
func parseRequestLine(line []byte) (method, target []byte, minor uint8, bad *fault) {
	i := 0
	for i < len(line) && tchar[line[i]] {
		i++
	}
	if i == 0 || i > MaxMethod || i == len(line) || line[i] != ' ' {
		return nil, nil, 0, faultf(ReasonRequestLine, 400, "no method: the line does not begin with a token of at most %d bytes and one space", MaxMethod)
	}
	method = line[:i:i]
	const version = " HTTP/1.1"
	v := len(line) - len(version)
	if v <= i+1 || string(line[v:v+6]) != " HTTP/" {
		return nil, nil, 0, faultf(ReasonRequestLine, 400, "no target, or the line does not end in one space and an HTTP version")
	}
	target = line[i+1 : v : v]
	if k := indexInvisible(target); k >= 0 {
		return nil, nil, 0, faultf(ReasonRequestLine, 400, "byte 0x%02x at offset %d of the target", target[k], k)
	}
	if len(target) > MaxTarget {
		return nil, nil, 0, faultf(ReasonHeadTooLarge, 431, "the target is larger than %d bytes", MaxTarget)
	}
	minor, ok := parseVersion(line[v+1:])
	if !ok {
		status := 400
		if major := line[v+6] - '0'; major <= 9 && line[v+7] == '.' && line[v+8]-'0' <= 9 {
			status = 505
		}
		return nil, nil, 0, faultf(ReasonRequestLine, status, "version %s; only HTTP/1.0 and HTTP/1.1 are spoken here", quoted(line[v+1:]))
	}
	return method, target, minor, nil
}

// parseVersion takes exactly HTTP/1.0 and HTTP/1.1.
func parseVersion(v []byte) (minor uint8, ok bool) {
	if len(v) != 8 || string(v[:7]) != "HTTP/1." {
		return 0, false
	}
	minor = v[7] - '0'
	return minor, minor <= 1
}
