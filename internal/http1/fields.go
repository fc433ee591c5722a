package http1

import (
	"fmt"
	"math"
)

// firstFields is how many fields the first head makes room for.
const firstFields = 16

// message is what the fields of a head say about the message as a whole.
type message struct {
	host, upgrade []byte
	length        int64

	// How often each was seen. At most MaxFields, so they do not wrap.
	hosts, lengths, codings, expects, upgrades uint8

	close, keepAlive, upgradeOption bool // what Connection lists
	otherExpect                     bool // an expectation that is not 100-continue
}

// parseFields appends the fields of block to dst. block is a run of CRLF lines
// and the empty one.
func (m *message) parseFields(dst []Field, block []byte) ([]Field, *fault) {
	if cap(dst) == 0 {
		dst = make([]Field, 0, firstFields)
	}
	for len(block) > 2 {
		f, n := parseField(block)
		if n == 0 {
			return dst, faultf(ReasonHeader, 400, "field %d: %s", len(dst)+1, describeField(block))
		}
		if bad := m.note(f); bad != nil {
			return dst, bad
		}
		dst = append(dst, f)
		block = block[n:]
	}
	return dst, nil
}

// parseField takes the first line of block, whose last line is empty. It returns
// the line's length, or 0 if it is not a field line.
func parseField(block []byte) (f Field, n int) {
	i := 0
	for tchar[block[i]] {
		i++
	}
	if i == 0 || block[i] != ':' {
		return Field{}, 0
	}
	start := i + 1
	for isOWS(block[start]) {
		start++
	}
	end := start + indexControl(block[start:])
	if block[end] != '\r' || block[end+1] != '\n' {
		return Field{}, 0
	}
	n = end + 2
	for end > start && isOWS(block[end-1]) {
		end--
	}
	return Field{Name: block[:i:i], Value: block[start:end:end]}, n
}

// describeField says why parseField refused. It quotes no more than the name,
// and not that if there is no colon: the line may be the rest of a folded secret.
func describeField(block []byte) string {
	i := 0
	for tchar[block[i]] {
		i++
	}
	c := block[i]
	switch {
	case i == 0 && isOWS(c):
		return "begins with white space (line folding is not accepted)"
	case i == 0 && c == ':':
		return "empty name"
	case c == '\r' && block[i+1] == '\n':
		return "no colon"
	case isOWS(c):
		return "white space in the name or before the colon"
	case c != ':':
		return fmt.Sprintf("byte 0x%02x at offset %d of the name", c, i)
	}
	at := indexControl(block[i:])
	return fmt.Sprintf("%s: byte 0x%02x at offset %d after the colon", quoted(block[:i]), block[i+at], at-1)
}

// note takes in what a field says about the message, and refuses what is wrong
// in that field alone.
func (m *message) note(f Field) *fault {
	switch name := f.Name; len(name) {
	case 4:
		if EqualFold(name, "host") {
			m.host = f.Value
			m.hosts++
		}
	case 6:
		if EqualFold(name, "expect") {
			m.expects++
			m.otherExpect = m.otherExpect || !EqualFold(f.Value, "100-continue")
		}
	case 7:
		if EqualFold(name, "upgrade") {
			m.upgrade = f.Value
			m.upgrades++
		}
	case 10:
		if EqualFold(name, "connection") {
			return m.noteConnection(f.Value)
		}
	case 14:
		if EqualFold(name, "content-length") {
			return m.noteLength(f.Value)
		}
		if equalUnderscored(name, "content-length") {
			return faultf(ReasonFraming, 400, "%s is Content-Length to some servers", quoted(name))
		}
	case 17:
		if EqualFold(name, "transfer-encoding") {
			m.codings++
			if !EqualFold(f.Value, "chunked") {
				return faultf(ReasonFraming, 400, "Transfer-Encoding is %s; only chunked is accepted", quoted(f.Value))
			}
			return nil
		}
		if equalUnderscored(name, "transfer-encoding") {
			return faultf(ReasonFraming, 400, "%s is Transfer-Encoding to some servers", quoted(name))
		}
	}
	return nil
}

// noteConnection reads a Connection field: a list of tokens, empty elements
// allowed (RFC 9110 section 5.6.1.2).
func (m *message) noteConnection(list []byte) *fault {
	for len(list) > 0 {
		var option []byte
		option, list = nextElement(list)
		switch {
		case len(option) == 0:
		case !ValidToken(option):
			return faultf(ReasonHeader, 400, "Connection lists %s, which is not a token", quoted(option))
		case EqualFold(option, "close"):
			m.close = true
		case EqualFold(option, "keep-alive"):
			m.keepAlive = true
		case EqualFold(option, "upgrade"):
			m.upgradeOption = true
		}
	}
	return nil
}

// noteLength reads a Content-Length field. Other spellings of a number, which
// strconv would take, are how two readers come to see two lengths.
func (m *message) noteLength(v []byte) *fault {
	m.lengths++
	n, ok := parseDecimal(v)
	if !ok {
		return faultf(ReasonFraming, 400, "Content-Length is %s; want decimal digits without a leading zero, at most 2^63-1", quoted(v))
	}
	m.length = n
	return nil
}

func parseDecimal(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 19 || v[0] == '0' && len(v) > 1 {
		return 0, false
	}
	var n uint64 // 19 digits are below 2^64
	for _, c := range v {
		if c -= '0'; c > 9 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return int64(n), n <= math.MaxInt64
}

// checkFraming refuses what the fields that frame a message say together.
func (m *message) checkFraming(minor uint8) *fault {
	switch {
	case m.codings > 0 && m.lengths > 0:
		return faultf(ReasonFraming, 400, "both Transfer-Encoding and Content-Length")
	case m.lengths > 1:
		return faultf(ReasonFraming, 400, "%d Content-Length fields", m.lengths)
	case m.codings > 1:
		return faultf(ReasonFraming, 400, "%d Transfer-Encoding fields", m.codings)
	case m.codings > 0 && minor == 0:
		return faultf(ReasonFraming, 400, "Transfer-Encoding on HTTP/1.0")
	}
	return nil
}

// checkUpgrade refuses an Upgrade of which only a part would be looked at.
func (m *message) checkUpgrade() *fault {
	if m.upgrades > 1 || m.upgrades == 1 && len(m.upgrade) == 0 {
		return faultf(ReasonHeader, 400, "Upgrade is empty or there are several")
	}
	return nil
}

func (m *message) checkRequest(minor uint8) *fault {
	if bad := m.checkFraming(minor); bad != nil {
		return bad
	}
	switch {
	case m.hosts > 1:
		return faultf(ReasonHeader, 400, "%d Host fields", m.hosts)
	case m.hosts == 0 && minor == 1:
		return faultf(ReasonHeader, 400, "no Host on HTTP/1.1")
	case m.otherExpect || m.expects > 1:
		return faultf(ReasonExpect, 417, "only one Expect, of 100-continue, can be met")
	}
	return m.checkUpgrade()
}
