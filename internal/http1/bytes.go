package http1

import (
	"encoding/binary"
	"math/bits"
)

// tchar marks the bytes of a token (RFC 9110 section 5.6.2).
var tchar = [256]bool{
	'!': true, '#': true, '$': true, '%': true, '&': true, '\'': true, '*': true, '+': true,
	'-': true, '.': true, '^': true, '_': true, '`': true, '|': true, '~': true,
	'0': true, '1': true, '2': true, '3': true, '4': true, '5': true, '6': true, '7': true, '8': true, '9': true,
	'A': true, 'B': true, 'C': true, 'D': true, 'E': true, 'F': true, 'G': true, 'H': true, 'I': true, 'J': true,
	'K': true, 'L': true, 'M': true, 'N': true, 'O': true, 'P': true, 'Q': true, 'R': true, 'S': true, 'T': true,
	'U': true, 'V': true, 'W': true, 'X': true, 'Y': true, 'Z': true,
	'a': true, 'b': true, 'c': true, 'd': true, 'e': true, 'f': true, 'g': true, 'h': true, 'i': true, 'j': true,
	'k': true, 'l': true, 'm': true, 'n': true, 'o': true, 'p': true, 'q': true, 'r': true, 's': true, 't': true,
	'u': true, 'v': true, 'w': true, 'x': true, 'y': true, 'z': true,
}

// The same byte in each lane of a word.
const (
	lanes01 = 0x0101010101010101
	lanes20 = 0x2020202020202020
	lanes21 = 0x2121212121212121
	lanes7f = 0x7f7f7f7f7f7f7f7f
	lanes80 = 0x8080808080808080
)

// indexControl returns where the first byte stands that a field value may not
// contain: a control byte other than HTAB, or DEL. -1 if there is none.
//
// It looks at eight bytes at a time. (x-n)&^x sets the top bit of each lane that
// is below n; a borrow can set it falsely only above a lane that is truly below,
// so the lowest lane found is always right.
func indexControl(b []byte) int {
	i := 0
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ lanes7f
		m := ((x-lanes20)&^x | (del-lanes01)&^del) & lanes80
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) / 8
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}

// indexInvisible returns where the first byte stands that a request target may
// not contain: anything but %x21-7E. -1 if there is none.
func indexInvisible(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ lanes7f
		if m := ((x-lanes21)&^x | (del-lanes01)&^del | x) & lanes80; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c <= ' ' || c >= 0x7f {
			return i
		}
	}
	return -1
}

// trim removes OWS from both ends of b.
func trim(b []byte) []byte {
	for len(b) > 0 && isOWS(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isOWS(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isOWS(c byte) bool { return c == ' ' || c == '\t' }

func lower(c byte) byte {
	if c-'A' < 26 {
		return c | 0x20
	}
	return c
}

// EqualFold reports whether a is lowerCase, ignoring the case of ASCII letters.
// lowerCase must be in lower case.
func EqualFold(a []byte, lowerCase string) bool {
	if len(a) != len(lowerCase) {
		return false
	}
	for i, c := range a {
		if lower(c) != lowerCase[i] {
			return false
		}
	}
	return true
}

func equalFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if lower(c) != lower(b[i]) {
			return false
		}
	}
	return true
}

// equalUnderscored is EqualFold with "_" read as "-": how gateways that turn
// field names into environment variables (CGI, WSGI) see a. Both have one length.
func equalUnderscored(a []byte, lowerCase string) bool {
	for i, c := range a {
		if c = lower(c); c == '_' {
			c = '-'
		}
		if c != lowerCase[i] {
			return false
		}
	}
	return true
}

// ValidToken reports whether b is a token: a method or a field name.
func ValidToken(b []byte) bool {
	for _, c := range b {
		if !tchar[c] {
			return false
		}
	}
	return len(b) > 0
}

// ValidValue reports whether b can be written as a field value and is read back
// as it is: no control byte but HTAB, no DEL, no white space at either end.
func ValidValue(b []byte) bool {
	return indexControl(b) < 0 && len(trim(b)) == len(b)
}

// HopByHop reports whether a field of this name is for one connection only and
// is never forwarded (RFC 9110 section 7.6.1, and what older clients send).
// Fields that a Connection field lists are so too: see [ConnectionNames].
func HopByHop(name []byte) bool {
	switch len(name) {
	case 2:
		return EqualFold(name, "te")
	case 7:
		return EqualFold(name, "trailer") || EqualFold(name, "upgrade")
	case 10:
		return EqualFold(name, "connection") || EqualFold(name, "keep-alive")
	case 14:
		return EqualFold(name, "http2-settings")
	case 16:
		return EqualFold(name, "proxy-connection")
	case 17:
		return EqualFold(name, "transfer-encoding")
	case 18:
		return EqualFold(name, "proxy-authenticate")
	case 19:
		return EqualFold(name, "proxy-authorization")
	}
	return false
}

// ConnectionNames reports whether a Connection field among fields lists name.
func ConnectionNames(fields []Field, name []byte) bool {
	for i := range fields {
		if !EqualFold(fields[i].Name, "connection") {
			continue
		}
		rest := fields[i].Value
		for len(rest) > 0 {
			var option []byte
			option, rest = nextElement(rest)
			if equalFoldBytes(option, name) {
				return true
			}
		}
	}
	return false
}

// nextElement splits the first element off a comma-separated list.
func nextElement(list []byte) (element, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}
