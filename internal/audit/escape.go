package audit

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// The rule of this file is: bytes are those of Python's json.dumps.

// plain reports whether appendPlain can write s whole.
func plain(s string) bool { return len(s) <= maxName && utf8.ValidString(s) }

// appendPlain appends a string of the top level, without quotes. The library
// validates those as Unicode, so what is not UTF-8 becomes U+FFFD here; the
// payload has the bytes.
func appendPlain(b []byte, s string) []byte {
	s = s[:cutAt(s, maxName)]
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return appendText(b, s)
}

// appendText appends s as appendEscaped does. Almost everything that is written
// needs no escape, and to find that out takes less than to look at each byte.
func appendText[T string | []byte](b []byte, s T) []byte {
	start := len(b)
	b = append(b, s...)
	if verbatim(b[start:]) {
		return b
	}
	return appendEscaped(b[:start], s)
}

// verbatim reports that every byte stands for itself in a JSON string.
func verbatim(s []byte) bool {
	if len(s) < 8 {
		for _, c := range s {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				return false
			}
		}
		return true
	}
	last := binary.LittleEndian.Uint64(s[len(s)-8:])
	for ; len(s) > 8; s = s[8:] {
		if special(binary.LittleEndian.Uint64(s)) != 0 {
			return false
		}
	}
	return special(last) == 0
}

// appendEscaped appends s as Python's json.dumps writes it between the quotes,
// with bytes that are not UTF-8 as errors="surrogateescape" reads them: byte
// 0xNN becomes U+DCNN.
func appendEscaped[T string | []byte](b []byte, s T) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c <= '~' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		b = append(b, s[start:i]...)
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		switch {
		case r == utf8.RuneError && size == 1:
			b = appendUnit(b, 0xdc00|uint16(c))
		case r > 0xffff:
			r -= 0x10000
			b = appendUnit(b, 0xd800|uint16(r>>10))
			b = appendUnit(b, 0xdc00|uint16(r&0x3ff))
		default:
			b = appendUnit(b, uint16(r))
		}
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

// appendEscape appends an ASCII character that cannot stand for itself.
func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	default:
		return appendUnit(b, uint16(c))
	}
}

// appendUnit appends one UTF-16 code unit as \uXXXX.
func appendUnit(b []byte, u uint16) []byte {
	return append(b, '\\', 'u', hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}
