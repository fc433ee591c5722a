package policy

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// The law of this file: a text is accepted only if every JSON reader that
// keeps to RFC 8259 reads the same value from it. Where readers are known to
// differ (which of two equal keys counts, what a lone surrogate becomes, how
// many digits of a number survive), the text is refused, since the origin's
// reader is not ours.

// maxDepth is how deep arrays and objects may nest. RFC 8259 section 9 lets a
// reader choose; the reader with the lowest limit in use decides.
const maxDepth = 64

// errJSON is the fault of a text and where it is.
type errJSON struct {
	offset  int
	problem string
}

func (e *errJSON) Error() string {
	return fmt.Sprintf("JSON byte %d: %s", e.offset, e.problem)
}

// StrictJSON reads one JSON text into nil, bool, float64, string, []any and
// map[string]any, as encoding/json does. It refuses keys given twice (also by
// case folding), a byte order mark, UTF-16, invalid UTF-8, lone surrogates, NUL
// in a key, numbers from 2^53 on or too small for a double, more than 64
// levels, and anything after the value.
func StrictJSON(text []byte) (any, error) {
	r := jsonReader{text: text}
	r.space()
	value, err := r.value(0)
	if err != nil {
		return nil, err
	}
	r.space()
	if r.at != len(text) {
		return nil, r.fail("data after the value")
	}
	return value, nil
}

type jsonReader struct {
	text []byte
	at   int
}

func (r *jsonReader) fail(problem string) error { return &errJSON{r.at, problem} }

func (r *jsonReader) space() {
	for r.at < len(r.text) && strings.IndexByte(" \t\r\n", r.text[r.at]) >= 0 {
		r.at++
	}
}

// peek returns the next byte, or 0 at the end; 0 itself begins no token.
func (r *jsonReader) peek() byte {
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *jsonReader) value(depth int) (any, error) {
	switch c := r.peek(); {
	case c == '{' || c == '[':
		if depth == maxDepth {
			return nil, r.fail("more than 64 levels")
		}
		r.at++
		if c == '{' {
			return r.object(depth + 1)
		}
		return r.array(depth + 1)
	case c == '"':
		return r.str()
	case c == '-' || '0' <= c && c <= '9':
		return r.number()
	}
	switch rest := r.text[r.at:]; {
	case bytes.HasPrefix(rest, []byte("true")):
		r.at += len("true")
		return true, nil
	case bytes.HasPrefix(rest, []byte("false")):
		r.at += len("false")
		return false, nil
	case bytes.HasPrefix(rest, []byte("null")):
		r.at += len("null")
		return nil, nil
	}
	return nil, r.fail("no value begins here")
}

func (r *jsonReader) object(depth int) (any, error) {
	out := map[string]any{}
	if r.space(); r.peek() == '}' {
		r.at++
		return out, nil
	}
	folded := map[string]bool{}
	for {
		r.space()
		if r.peek() != '"' {
			return nil, r.fail("expected a key")
		}
		start := r.at
		key, err := r.str()
		if err != nil {
			return nil, err
		}
		if fold := foldKey(key); folded[fold] {
			return nil, &errJSON{start, "a key is there twice"}
		} else if folded[fold] = true; strings.IndexByte(key, 0) >= 0 {
			return nil, &errJSON{start, "a key holds NUL"}
		}
		if r.space(); r.peek() != ':' {
			return nil, r.fail("expected a colon")
		}
		r.at++
		r.space()
		if out[key], err = r.value(depth); err != nil {
			return nil, err
		}
		if more, err := r.more('}'); !more {
			return out, err
		}
	}
}

func (r *jsonReader) array(depth int) (any, error) {
	out := []any{}
	if r.space(); r.peek() == ']' {
		r.at++
		return out, nil
	}
	for {
		r.space()
		value, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, value)
		if more, err := r.more(']'); !more {
			return out, err
		}
	}
}

// more reads a comma, after which there is more, or the closing byte.
func (r *jsonReader) more(closing byte) (bool, error) {
	r.space()
	switch r.peek() {
	case ',':
		r.at++
		return true, nil
	case closing:
		r.at++
		return false, nil
	}
	return false, r.fail("expected a comma or " + string(closing))
}

// str reads a string, whose opening quote is next.
func (r *jsonReader) str() (string, error) {
	r.at++
	start := r.at
	for r.at < len(r.text) { // what has no escapes needs no copy but one
		switch c := r.text[r.at]; {
		case c == '"':
			s := r.text[start:r.at]
			if !utf8.Valid(s) {
				return "", r.fail("invalid UTF-8")
			}
			r.at++
			return string(s), nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return "", r.fail("a control character in a string")
		}
		r.at++
	}
	return "", r.fail("a string without an end")
}

// escaped reads a string that began at start and has an escape here.
func (r *jsonReader) escaped(start int) (string, error) {
	out := append([]byte(nil), r.text[start:r.at]...)
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", r.fail("invalid UTF-8")
			}
			r.at++
			return string(out), nil
		case c < ' ':
			return "", r.fail("a control character in a string")
		case c != '\\':
			out = append(out, c)
			r.at++
			continue
		}
		var err error
		if out, err = r.escape(out); err != nil {
			return "", err
		}
	}
	return "", r.fail("a string without an end")
}

// escape reads one escape and appends what it stands for.
func (r *jsonReader) escape(out []byte) ([]byte, error) {
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	r.at++
	if i := strings.IndexByte(from, r.peek()); i >= 0 {
		r.at++
		return append(out, to[i]), nil
	}
	unit, err := r.unit()
	if err != nil {
		return nil, err
	}
	if !utf16.IsSurrogate(unit) {
		return utf8.AppendRune(out, unit), nil
	}
	if r.peek() != '\\' {
		return nil, r.fail("a lone surrogate")
	}
	r.at++
	low, err := r.unit()
	if err != nil {
		return nil, err
	}
	pair := utf16.DecodeRune(unit, low)
	if pair == unicode.ReplacementChar {
		return nil, r.fail("a lone surrogate")
	}
	return utf8.AppendRune(out, pair), nil
}

// unit reads u and four hexadecimal digits.
func (r *jsonReader) unit() (rune, error) {
	if r.peek() != 'u' || len(r.text)-r.at < 5 {
		return 0, r.fail("an escape that JSON does not have")
	}
	v, err := strconv.ParseUint(string(r.text[r.at+1:r.at+5]), 16, 16)
	if err != nil {
		return 0, r.fail("an escape that JSON does not have")
	}
	r.at += 5
	return rune(v), nil
}

func (r *jsonReader) digits() int {
	start := r.at
	for '0' <= r.peek() && r.peek() <= '9' {
		r.at++
	}
	return r.at - start
}

// number reads a number by the grammar of RFC 8259 section 6.
func (r *jsonReader) number() (any, error) {
	start := r.at
	if r.peek() == '-' {
		r.at++
	}
	first := r.peek()
	if n := r.digits(); n == 0 || n > 1 && first == '0' {
		return nil, r.fail("no number that JSON has")
	}
	if r.peek() == '.' {
		r.at++
		if r.digits() == 0 {
			return nil, r.fail("no digit after the point")
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		r.at++
		if c := r.peek(); c == '+' || c == '-' {
			r.at++
		}
		if r.digits() == 0 {
			return nil, r.fail("no digit in the exponent")
		}
	}
	text := string(r.text[start:r.at])
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !held(text, v) {
		return nil, &errJSON{start, "a number that a double does not hold"}
	}
	return v, nil
}

// maxNumber is where doubles begin to leave out whole numbers. The range within
// is what I-JSON (RFC 7493 section 2.2) promises that every reader keeps.
const maxNumber = 1 << 53

// held reports that no reader with doubles loses what one with big numbers
// keeps: whole numbers are exact, and what is not zero does not become zero.
// Fractions are rounded, which all readers do alike.
func held(text string, v float64) bool {
	mantissa, _, _ := strings.Cut(strings.ToLower(text), "e")
	return math.Abs(v) < maxNumber && (v != 0 || strings.Trim(mantissa, "-0.") == "")
}

// foldKey maps keys that a reader might take for one another to one key. It
// folds as encoding/json does: each rune to the least of those that differ
// from it by case alone (K and the Kelvin sign, s and the long s).
func foldKey(key string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, key)
}
