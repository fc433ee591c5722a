package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// The rules of this file are: a line has one spelling, that of the package
// comment; anything else is an error, however well a JSON parser would read it
// (respell.go has the other spellings of the aegrail library); a number stays
// the text that was hashed.

const (
	// maxLine is the longest line that is read, with its newline. The
	// engine's own stay below 64 KiB; the library's have no limit of their own.
	maxLine = 1 << 20
	// maxDepth is how deep objects and lists may nest.
	maxDepth = 64
)

// line is a record as it stands in a file: views of its bytes, still escaped.
type line struct {
	agent, event, session, ts, principal []byte // contents of the strings
	invoking, payload, budget            []byte // JSON values
	hash, prev                           []byte // 64 hex digits; prev is nil for null
	cut, resume                          int    // the hash covers [0,cut) and [resume,end)

	seq, phase, id, clockJump             []byte // members of the payload, JSON values; nil where absent
	reason, checkpoint, frontier, segment []byte // … of the log's own records; nil without seq
	more                                  bool   // the payload has members that no checkpoint has
}

// parse takes b, a line without its newline, apart. The views in l alias b.
func (l *line) parse(b []byte) error {
	*l = line{}
	s := scanner{b: b}
	var err error
	text := func(key string, dst *[]byte) {
		if err == nil {
			*dst, err = s.member(key, s.text)
		}
	}
	text(`{"agent_identity":`, &l.agent)
	if err == nil {
		l.budget, err = s.member(`,"budget":`, s.object)
	}
	text(`,"event":`, &l.event)
	l.cut = s.i
	text(`,"event_hash":`, &l.hash)
	l.resume = s.i
	if err == nil {
		l.invoking, err = s.member(`,"invoking_user":`, s.textOrNull)
	}
	if err == nil {
		s.top = l
		l.payload, err = s.member(`,"payload":`, s.object)
		s.top = nil
	}
	if err == nil {
		l.prev, err = s.member(`,"prev_hash":`, s.textOrNull)
	}
	text(`,"principal":`, &l.principal)
	text(`,"session_id":`, &l.session)
	text(`,"ts":`, &l.ts)
	switch {
	case err != nil:
		return err
	case string(b[s.i:]) != "}":
		return fmt.Errorf("column %d: more than the ten keys of a record, or text behind it", s.i+1)
	case !isHash(l.hash):
		return errors.New("event_hash is not 64 lower-case hex digits")
	}
	if l.seq == nil { // the library's: what its payload says is its own affair
		l.reason, l.checkpoint, l.frontier, l.segment = nil, nil, nil, nil
	}
	if string(l.prev) == "null" {
		l.prev = nil
		return nil
	}
	l.prev = l.prev[1 : len(l.prev)-1]
	if !isHash(l.prev) {
		return errors.New("prev_hash is neither null nor 64 lower-case hex digits")
	}
	return nil
}

func isHash(b []byte) bool {
	if len(b) != hashLen {
		return false
	}
	for i := 0; i < hashLen; i += 8 {
		if !lowerHex(binary.LittleEndian.Uint64(b[i:])) {
			return false
		}
	}
	return true
}

// Eight bytes at a time, each in a lane of a uint64. The numbers below have the
// same byte in every lane.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// lowerHex reports whether all of the eight bytes are lower-case hex digits.
func lowerHex(x uint64) bool {
	// For a lane below 0x80, adding 0x80-c sets its high bit if it is c or more.
	digit := (x + (0x80-'0')*ones) &^ (x + (0x80-'9'-1)*ones)
	letter := (x + (0x80-'a')*ones) &^ (x + (0x80-'f'-1)*ones)
	return x&highs == 0 && (digit|letter)&highs == highs
}

// special returns the high bits of the lanes whose byte does not stand for
// itself in a string: the quotation mark, the backslash, and what is below
// U+0020 or above U+007E. Lanes above the lowest such byte may be wrong.
func special(x uint64) uint64 {
	quote, slash := x^'"'*ones, x^'\\'*ones
	return ((quote-ones)&^quote | (slash-ones)&^slash | (x-' '*ones)&^x | (x + (0x80-0x7f)*ones) | x) & highs
}

// scanner reads canonical JSON. Its methods leave i behind what they read.
type scanner struct {
	b       []byte
	i       int
	escaped bool  // the string that was read last has an escape
	top     *line // set while the payload's own members are read
}

func (s *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("column %d: %s", s.i+1, fmt.Sprintf(format, args...))
}

// member reads the literal text of a key and then its value.
func (s *scanner) member(key string, value func() ([]byte, error)) ([]byte, error) {
	if !bytes.HasPrefix(s.b[s.i:], []byte(key)) {
		return nil, s.errorf("expected %s, as the keys of a record are fixed and sorted, without spaces", key)
	}
	s.i += len(key)
	return value()
}

// text reads a string and returns what is between its quotes.
func (s *scanner) text() ([]byte, error) {
	start := s.i
	if err := s.str(); err != nil {
		return nil, err
	}
	return s.b[start+1 : s.i-1], nil
}

func (s *scanner) textOrNull() ([]byte, error) {
	start := s.i
	if s.lit("null") {
		return s.b[start:s.i], nil
	}
	err := s.str()
	return s.b[start:s.i], err
}

func (s *scanner) object() ([]byte, error) {
	start := s.i
	err := s.members(1)
	return s.b[start:s.i], err
}

// lit reads the literal text and reports whether it was there.
func (s *scanner) lit(text string) bool {
	if len(s.b)-s.i < len(text) || string(s.b[s.i:s.i+len(text)]) != text {
		return false
	}
	s.i += len(text)
	return true
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return s.errorf("nested deeper than %d", maxDepth)
	}
	switch c := s.peek(); c {
	case '{':
		return s.members(depth)
	case '[':
		return s.list(depth)
	case '"':
		return s.str()
	case 't', 'f', 'n':
		if s.lit("true") || s.lit("false") || s.lit("null") {
			return nil
		}
		return s.errorf("not a JSON value")
	default:
		return s.number()
	}
}

// members reads an object, whose keys must rise by code point.
func (s *scanner) members(depth int) error {
	if !s.lit("{") {
		return s.errorf("expected an object")
	}
	if s.lit("}") {
		return nil
	}
	last, first, wasEscaped := []byte(nil), true, false
	for {
		at := s.i
		key, err := s.text()
		if err != nil {
			return err
		}
		compare := bytes.Compare // which is that of code points if no escape is in the way
		if wasEscaped || s.escaped {
			compare = compareKeys
		}
		if !first && compare(last, key) >= 0 {
			s.i = at
			return s.errorf("key %q does not sort behind %q", key, last)
		}
		last, first, wasEscaped = key, false, s.escaped
		if !s.lit(":") {
			return s.errorf("expected a colon")
		}
		start := s.i
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if s.top != nil && depth == 1 {
			s.top.note(key, s.b[start:s.i])
		}
		if s.lit("}") {
			return nil
		}
		if !s.lit(",") {
			return s.errorf("expected a comma or the end of the object")
		}
	}
}

// note keeps the payload's members that the chain and its counts go by.
func (l *line) note(key, value []byte) {
	switch string(key) {
	case "seq":
		l.seq = value
	case "phase":
		l.phase, l.more = value, true
	case "id":
		l.id, l.more = value, true
	case "reason":
		l.reason = value
	case "clock_jump_ms":
		l.clockJump = value
	case "checkpoint":
		l.checkpoint = value
	case "frontier":
		l.frontier = value
	case "segment":
		l.segment = value
	default:
		l.more = true
	}
}

func (s *scanner) list(depth int) error {
	s.i++
	if s.lit("]") {
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if s.lit("]") {
			return nil
		}
		if !s.lit(",") {
			return s.errorf("expected a comma or the end of the list")
		}
	}
}

// str reads a string. Every character has one spelling.
func (s *scanner) str() error {
	if !s.lit(`"`) {
		return s.errorf("expected a string")
	}
	s.escaped = false
	for s.i < len(s.b) {
		if s.i+8 <= len(s.b) {
			found := special(binary.LittleEndian.Uint64(s.b[s.i:]))
			if found == 0 {
				s.i += 8
				continue
			}
			s.i += bits.TrailingZeros64(found) / 8
		}
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return nil
		case c == '\\':
			s.escaped = true
			if err := s.escape(); err != nil {
				return err
			}
		case c < ' ' || c > '~':
			return s.errorf("byte 0x%02x is not escaped", c)
		default:
			s.i++
		}
	}
	return s.errorf("the string does not end")
}

func (s *scanner) escape() error {
	rest := s.b[s.i:]
	if len(rest) >= 2 && bytes.IndexByte([]byte(`"\bfnrt`), rest[1]) >= 0 {
		s.i += 2
		return nil
	}
	u, ok := unit(rest)
	switch {
	case !ok:
		return s.errorf("not an escape that is in use here")
	case u >= ' ' && u <= '~' || u < ' ' && bytes.IndexByte([]byte("\b\f\n\r\t"), byte(u)) >= 0:
		return s.errorf("%s has a shorter spelling", rest[:6])
	}
	s.i += 6
	return nil
}

// unit decodes \uXXXX with lower-case digits at the start of b.
func unit(b []byte) (u uint16, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | uint16(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 | uint16(c-'a'+10)
		default:
			return 0, false
		}
	}
	return u, true
}

// number reads an integer, or a float as Python prints it, as text.
func (s *scanner) number() error {
	start := s.i
	negative := s.lit("-")
	zero := s.peek() == '0'
	digits := s.digits()
	if digits == 0 || zero && digits > 1 {
		s.i = start
		return s.errorf("not a JSON value")
	}
	integer := true
	if s.lit(".") {
		if integer = false; s.digits() == 0 {
			return s.errorf("a number without digits behind the point")
		}
	}
	if s.lit("e") {
		_ = s.lit("-") || s.lit("+")
		if integer = false; s.digits() == 0 {
			return s.errorf("a number without digits in the exponent")
		}
	}
	switch {
	case integer && zero && negative:
		return s.errorf("-0 is not an integer that is written")
	case !integer && !isRepr(s.b[start:s.i]):
		at := s.b[start:s.i]
		s.i = start
		return s.errorf("%.40s is not how Python prints that float", at)
	}
	return nil
}

func (s *scanner) digits() (n int) {
	for s.peek() >= '0' && s.peek() <= '9' {
		s.i++
		n++
	}
	return n
}

// compareKeys compares two escaped keys by code point, as Python sorts them.
func compareKeys(a, b []byte) int {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Compare(a, b)
	}
	return bytes.Compare(unescape(nil, a, false), unescape(nil, b, false))
}

// unescape appends the text of a canonical string's contents. With restore the
// code points U+DC80 to U+DCFF become the bytes 0x80 to 0xFF that they stand
// for; without, and for other lone surrogates, they become the three bytes that
// UTF-8 would have for them, which keeps the order of code points.
func unescape(dst, s []byte, restore bool) []byte {
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			i++
			continue
		}
		u, ok := unit(s[i:])
		if !ok {
			dst = append(dst, short(s[i+1]))
			i += 2
			continue
		}
		i += 6
		if u >= 0xd800 && u < 0xdc00 {
			if low, ok := unit(s[i:]); ok && low >= 0xdc00 && low < 0xe000 {
				dst = utf8.AppendRune(dst, 0x10000+rune(u-0xd800)<<10+rune(low-0xdc00))
				i += 6
				continue
			}
		}
		switch {
		case restore && u >= 0xdc80 && u <= 0xdcff:
			dst = append(dst, byte(u))
		case u >= 0xd800 && u < 0xe000:
			dst = append(dst, 0xe0|byte(u>>12), 0x80|byte(u>>6)&0xbf, 0x80|byte(u)&0xbf)
		default:
			dst = utf8.AppendRune(dst, rune(u))
		}
	}
	return dst
}

// short returns what a two-character escape stands for.
func short(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	default:
		return c
	}
}
