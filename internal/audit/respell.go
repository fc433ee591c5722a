package audit

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The rules of this file are: the aegrail library hashes the canonical form and
// writes the record in another spelling (the package comment, "Lines of the
// library"), so a line that is not canonical is read as strict JSON and spelled
// anew, and all that follows sees the canonical form alone; what Python's
// json.loads reads in two ways, or not at all, is refused; integers stay text of
// any size, floats become what repr prints; and a record with a payload.seq is
// the engine's, which has one spelling.

// respeller takes lines of either spelling apart.
type respeller struct {
	lines int64  // that were not canonical
	buf   []byte // the canonical form of the last of them
	spare []byte // for sorting members
	spans []span
}

// span is where a member of an object stands in respeller.buf.
type span struct {
	start, end int
	name       int // where the text of its name ends; it begins behind a quotation mark
}

// parse takes b apart into l and returns its canonical form, which is b itself
// if b is canonical, and else is valid until the next call. The views in l
// alias what is returned.
func (r *respeller) parse(l *line, b []byte) ([]byte, error) {
	err := l.parse(b)
	if err == nil {
		return b, nil
	}
	canonical, other := r.respell(b)
	if other == nil {
		if other = l.parse(canonical); other != nil {
			other = fmt.Errorf("spelled canonically, %w", other)
		}
	}
	switch {
	case other != nil && bytes.HasPrefix(b, []byte(`{"agent_identity":`)):
		return nil, err // it begins as canonical lines do
	case other != nil:
		return nil, other
	case l.seq != nil:
		return nil, fmt.Errorf("a record of the engine in another spelling than the engine's: %w", err)
	}
	r.lines++
	return canonical, nil
}

// respell returns the canonical spelling of the JSON text b.
func (r *respeller) respell(b []byte) ([]byte, error) {
	p := reader{scanner: scanner{b: b}, r: r}
	r.buf, r.spans = r.buf[:0], r.spans[:0]
	if p.space(); p.peek() != '{' {
		return nil, p.errorf("expected a record, which is a JSON object")
	}
	if err := p.value(0); err != nil {
		return nil, err
	}
	if p.space(); p.i < len(b) {
		return nil, p.errorf("text behind the record")
	}
	return r.buf, nil
}

// reader reads JSON of any spelling and appends the canonical one to r.buf.
type reader struct {
	scanner
	r *respeller
}

func (p *reader) space() {
	for p.i < len(p.b) && (p.b[p.i] == ' ' || p.b[p.i] == '\t' || p.b[p.i] == '\r' || p.b[p.i] == '\n') {
		p.i++
	}
}

// sign reads a character with the space around it, and copies it.
func (p *reader) sign(c string) bool {
	p.space()
	if !p.lit(c) {
		return false
	}
	p.r.buf = append(p.r.buf, c...)
	p.space()
	return true
}

func (p *reader) value(depth int) error {
	if depth > maxDepth {
		return p.errorf("nested deeper than %d", maxDepth)
	}
	switch p.peek() {
	case '{':
		return p.object(depth)
	case '[':
		return p.list(depth)
	case '"':
		return p.string()
	case 't', 'f', 'n':
		start := p.i
		if !p.lit("true") && !p.lit("false") && !p.lit("null") {
			return p.errorf("not a JSON value")
		}
		p.r.buf = append(p.r.buf, p.b[start:p.i]...)
		return nil
	default:
		return p.number()
	}
}

func (p *reader) list(depth int) error {
	p.sign("[")
	if p.sign("]") {
		return nil
	}
	for {
		if err := p.value(depth + 1); err != nil {
			return err
		}
		if p.sign("]") {
			return nil
		}
		if !p.sign(",") {
			return p.errorf("expected a comma or the end of the list")
		}
	}
}

// object appends the members as they come and sorts them afterwards.
func (p *reader) object(depth int) error {
	start, first := len(p.r.buf), len(p.r.spans)
	p.sign("{")
	for more := !p.sign("}"); more; {
		at := len(p.r.buf)
		if p.peek() != '"' {
			return p.errorf("expected a string, the name of a member")
		}
		if err := p.string(); err != nil {
			return err
		}
		name := len(p.r.buf) - 1
		if !p.sign(":") {
			return p.errorf("expected a colon")
		}
		if err := p.value(depth + 1); err != nil {
			return err
		}
		p.r.spans = append(p.r.spans, span{start: at, end: len(p.r.buf), name: name})
		if more = p.sign(","); !more && !p.sign("}") {
			return p.errorf("expected a comma or the end of the object")
		}
	}
	err := p.r.sort(start, p.r.spans[first:])
	p.r.spans = p.r.spans[:first]
	if err != nil {
		return p.errorf("%v", err)
	}
	return nil
}

// sort puts the members of the object that begins at start in order.
func (r *respeller) sort(start int, members []span) error {
	key := func(m span) []byte { return r.buf[m.start+1 : m.name] }
	order := func(a, b span) int { return compareKeys(key(a), key(b)) }
	sorted := slices.IsSortedFunc(members, order)
	if !sorted {
		slices.SortFunc(members, order)
	}
	for i := range len(members) - 1 {
		if bytes.Equal(key(members[i]), key(members[i+1])) {
			return fmt.Errorf("key %.60q occurs twice", key(members[i]))
		}
	}
	if sorted {
		return nil
	}
	r.spare = append(r.spare[:0], r.buf[start:]...)
	r.buf = r.buf[:start+1]
	for i, m := range members {
		if i > 0 {
			r.buf = append(r.buf, ',')
		}
		r.buf = append(r.buf, r.spare[m.start-start:m.end-start]...)
	}
	r.buf = append(r.buf, '}')
	return nil
}

// string reads a string of any spelling. Lone surrogates are taken as escapes,
// as Python takes them, and never as UTF-8, which has none.
func (p *reader) string() error {
	p.lit(`"`)
	p.r.buf = append(p.r.buf, '"')
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			p.i++
			p.r.buf = append(p.r.buf, '"')
			return nil
		case c == '\\':
			if err := p.escape(); err != nil {
				return err
			}
		case c < ' ':
			return p.errorf("byte 0x%02x is not escaped", c)
		default:
			_, size := utf8.DecodeRune(p.b[p.i:])
			if c >= utf8.RuneSelf && size == 1 {
				return p.errorf("byte 0x%02x is not UTF-8", c)
			}
			p.r.buf = appendEscaped(p.r.buf, p.b[p.i:p.i+size])
			p.i += size
		}
	}
	return p.errorf("the string does not end")
}

func (p *reader) escape() error {
	rest := p.b[p.i:]
	if len(rest) >= 2 && bytes.IndexByte([]byte(`"\/bfnrt`), rest[1]) >= 0 {
		p.r.buf = appendUTF16(p.r.buf, uint16(short(rest[1])))
		p.i += 2
		return nil
	}
	if len(rest) >= 6 && rest[1] == 'u' {
		var u uint16
		for _, c := range rest[2:6] {
			n := bytes.IndexByte([]byte(hexDigits), c|0x20) // A to F as a to f; digits have that bit
			if n < 0 || c < '0' {
				return p.errorf("not an escape of JSON")
			}
			u = u<<4 | uint16(n)
		}
		p.r.buf = appendUTF16(p.r.buf, u)
		p.i += 6
		return nil
	}
	return p.errorf("not an escape of JSON")
}

// appendUTF16 appends a code unit that was read from an escape.
func appendUTF16(b []byte, u uint16) []byte {
	if u < utf8.RuneSelf {
		return appendEscaped(b, []byte{byte(u)})
	}
	return appendUnit(b, u)
}

func (p *reader) number() error {
	start := p.i
	negative := p.lit("-")
	zero := p.peek() == '0'
	if n := p.digits(); n == 0 || zero && n > 1 {
		p.i = start
		return p.errorf("not a JSON value")
	}
	integer := true
	if p.lit(".") {
		if integer = false; p.digits() == 0 {
			return p.errorf("a number without digits behind the point")
		}
	}
	if p.lit("e") || p.lit("E") {
		_ = p.lit("-") || p.lit("+")
		if integer = false; p.digits() == 0 {
			return p.errorf("a number without digits in the exponent")
		}
	}
	text := p.b[start:p.i]
	switch {
	case !integer:
		b, err := appendFloat(p.r.buf, text)
		if err != nil {
			return p.errorf("%v", err)
		}
		p.r.buf = b
	case negative && zero:
		p.r.buf = append(p.r.buf, '0') // json.loads("-0") is 0
	default:
		p.r.buf = append(p.r.buf, text...)
	}
	return nil
}

// appendFloat appends the float that text is a spelling of as Python's repr
// prints it: the fewest digits that give the same double, with an exponent of at
// least two digits below 1e-4 and from 1e16.
func appendFloat(b, text []byte) ([]byte, error) {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil { // too large; Python would make "Infinity" of it, which is not JSON
		return b, fmt.Errorf("%.40s is beyond what a float can hold", text)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64), nil
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if bytes.IndexByte(b[start:], '.') < 0 {
		b = append(b, '.', '0')
	}
	return b, nil
}

// isRepr reports whether text, a float by JSON's grammar, is spelled as
// Python's repr spells it.
func isRepr(text []byte) bool {
	var room [32]byte
	b, err := appendFloat(room[:0], text)
	return err == nil && bytes.Equal(b, text)
}
