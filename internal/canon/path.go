package canon

import (
	"bytes"
	"unicode/utf8"
)

// What a byte of a canonical path is.
const (
	pathPlain   = iota
	pathSlash   // '/'
	pathParam   // ';'
	pathPercent // '%'
	pathBack    // '\'
	pathNever   // controls, high bytes, and what RFC 3986 does not allow
)

// pathClass is indexed by the byte and never written to. Everything not named is pathPlain:
// unreserved, sub-delims, ':' and '@' (RFC 3986 section 3.3), and the four of
// the package comment.
var pathClass = func() (t [256]uint8) {
	for c := range t {
		if c <= ' ' || c >= 0x7f {
			t[c] = pathNever
		}
	}
	for _, c := range []byte("\"#<>?`{}") {
		t[c] = pathNever
	}
	t['/'], t[';'], t['%'], t['\\'] = pathSlash, pathParam, pathPercent, pathBack
	return t
}()

// AppendPath appends the canonical form of the path raw (no query) to dst and
// returns it with what a rule must opt in to. Doing it again changes nothing.
// It is what FromHTTP1 and FromHTTP2 do to a path; policy does it to patterns,
// so that both are spelled alike.
func AppendPath(dst, raw []byte) ([]byte, Quirks, error) {
	n := len(dst)
	dst, e := appendCanonical(dst, raw)
	if e != nil {
		return dst[:n], 0, e
	}
	q, e := judgePath(dst[n:])
	if e != nil {
		return dst[:n], 0, e
	}
	return dst, q, nil
}

// appendCanonical rewrites triplets: upper case, unreserved decoded. The result
// is never longer than raw.
func appendCanonical(dst, raw []byte) ([]byte, *Error) {
	for size := len(raw); ; {
		i := bytes.IndexByte(raw, '%')
		if i < 0 {
			return append(dst, raw...), nil
		}
		dst = append(dst, raw[:i]...)
		raw = raw[i:]
		c, ok := triplet(raw)
		if !ok {
			return dst, refuse(ReasonBadPath, 400, "broken percent-encoding %s, %d bytes into the path", quoted(raw[:min(len(raw), 3)]), size-len(raw))
		}
		if unreserved(c) {
			dst = append(dst, c)
		} else {
			const digits = "0123456789ABCDEF"
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
		raw = raw[3:]
	}
}

// judgePath refuses a canonical path that has two readings. It alone holds the
// rules of the package comment: appendCanonical has left one spelling of each.
// An error names the place in the canonical path and the bytes there, never the
// rest: a path may hold a secret, and the rule may have it recorded as a hash.
func judgePath(p []byte) (Quirks, *Error) {
	if len(p) == 0 || p[0] != '/' {
		return 0, refuse(ReasonBadTarget, 400, "path does not begin with a slash but %s", quoted(beginning(p)))
	}
	var q Quirks
	seg := 1 // where the current segment begins, an encoded slash being a border too
	for i := 1; i < len(p); i++ {
		c := p[i]
		switch pathClass[c] {
		case pathPlain:
		case pathSlash:
			if dotSegment(p[seg:i]) {
				return 0, refuseDots(seg)
			}
			if p[i-1] == '/' {
				q |= DoubleSlash
			}
			seg = i + 1
		case pathParam:
			q |= Semicolon
		case pathBack:
			return 0, refuse(ReasonAmbiguousPath, 400, "backslash, %d bytes into the path", i)
		case pathPercent:
			n, quirk, e := judgeTriplet(p, i)
			if e != nil {
				return 0, e
			}
			if quirk == EncodedSlash {
				if dotSegment(p[seg:i]) {
					return 0, refuseDots(seg)
				}
				seg = i + n
			}
			q |= quirk
			i += n - 1
		default:
			return 0, refuse(ReasonBadPath, 400, "byte %#02x, %d bytes into the path", c, i)
		}
	}
	if dotSegment(p[seg:]) {
		return 0, refuseDots(seg)
	}
	return q, nil
}

func refuseDots(at int) *Error {
	return refuse(ReasonAmbiguousPath, 400, "dot segment, %d bytes into the path", at)
}

// dotSegment reports whether somebody reads the segment as "." or "..": servlet
// containers cut parameters off first (CVE-2018-11759), Windows
// drops spaces at the end of a name.
func dotSegment(s []byte) bool {
	n := 0
	for n < len(s) && s[n] == '.' {
		n++
	}
	if n == 0 || n > 2 {
		return false
	}
	rest := s[n:]
	return len(rest) == 0 || rest[0] == ';' || bytes.HasPrefix(rest, []byte("%3B")) || bytes.HasPrefix(rest, []byte("%20"))
}

// judgeTriplet judges the triplet at p[i], with the ones after it where they
// make one character. It returns how many bytes it judged and the quirk they are.
// The triplet is whole: appendCanonical saw to that.
func judgeTriplet(p []byte, i int) (n int, quirk Quirks, e *Error) {
	c, _ := triplet(p[i:])
	switch {
	case c < ' ' || c == 0x7f:
		return 0, 0, refuseTriplet(ReasonBadPath, "encoded control", p, i)
	case c == '\\':
		return 0, 0, refuseTriplet(ReasonAmbiguousPath, "encoded backslash", p, i)
	case c == '/':
		return 3, EncodedSlash, nil
	case c == ';':
		// Who decodes before cutting parameters off reads /admin%3Bx as /admin.
		return 3, Semicolon, nil
	case c == '%':
		if again, ok := hexPair(p[i+3:]); ok && twice(again) {
			return 0, 0, refuseTriplet(ReasonAmbiguousPath, "double encoding", p, i)
		}
		return 3, 0, nil
	case c >= 0x80:
		n, ok := encodedRune(p[i:])
		if !ok {
			return 0, 0, refuseTriplet(ReasonBadPath, "what is not UTF-8", p, i)
		}
		return n, 0, nil
	default:
		return 3, 0, nil
	}
}

func refuseTriplet(reason, what string, p []byte, i int) *Error {
	return refuse(reason, 400, "%s, %s, %d bytes into the path", what, p[i:i+3], i)
}

// twice reports whether a byte that shows only after decoding twice would
// change what the path means.
func twice(c byte) bool {
	switch c {
	case '/', '\\', '.', ';', '%':
		return true
	default:
		return c < ' ' || c >= 0x7f
	}
}

// encodedRune reads one character of two to four triplets and returns their
// length in bytes. Not minimal, surrogate, cut or a C1 control: not ok.
func encodedRune(p []byte) (n int, ok bool) {
	var b [utf8.UTFMax]byte
	k := 0
	for k < len(b) {
		c, ok := triplet(p[min(3*k, len(p)):])
		if !ok || c < 0x80 {
			break
		}
		b[k] = c
		k++
		if utf8.FullRune(b[:k]) {
			break
		}
	}
	r, size := utf8.DecodeRune(b[:k])
	if r == utf8.RuneError && size <= 1 || r < 0xa0 {
		return 0, false
	}
	return 3 * size, true
}

// AppendDecoded appends p with every triplet decoded to dst: what an origin
// sees of one segment of a canonical path. An encoded slash becomes a slash, so
// split the path first. A deny rule must match this as well as the segment
// itself: %3A and ':' are two canonical spellings (RFC 3986 section 2.2) which
// nearly every origin reads alike.
func AppendDecoded(dst, p []byte) []byte {
	for i := 0; i < len(p); i++ {
		if c, ok := triplet(p[i:]); ok {
			dst = append(dst, c)
			i += 2
			continue
		}
		dst = append(dst, p[i])
	}
	return dst
}

// triplet reads a percent triplet at the beginning of p.
func triplet(p []byte) (byte, bool) {
	if len(p) < 3 || p[0] != '%' {
		return 0, false
	}
	return hexPair(p[1:])
}

func hexPair(p []byte) (byte, bool) {
	if len(p) < 2 {
		return 0, false
	}
	hi, lo := unhex(p[0]), unhex(p[1])
	if hi < 0 || lo < 0 {
		return 0, false
	}
	return byte(hi<<4 | lo), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}
