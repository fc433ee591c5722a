package report

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// keep bounds a text that is kept. One that is too long loses its middle, and
// a part of its hash keeps it apart from others with the same ends: the end of
// a host says whose it is.
func keep(s string) string {
	if len(s) <= maxText {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	half := (maxText - 32) / 2
	return s[:half] + "(sha256 " + hex.EncodeToString(sum[:4]) + ")" + s[len(s)-half:]
}

// visible returns s in printable ASCII without a quotation mark's escape, the
// rest as Go escapes it. Two texts that differ stay different.
func visible(s string) string {
	q := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// shorten leaves out the middle of a text that visible made, if it is longer
// than limit characters.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	head := (limit - 1) / 2
	return s[:head] + "…" + s[len(s)-(limit-1-head):]
}

// number renders n with a comma for each thousand.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// size renders a count of bytes: exactly below 10 KiB, then to three digits.
func size(n int64) string {
	if n < 10<<10 {
		return number(n) + " B"
	}
	v, unit := float64(n), 0
	for v >= 1024 && unit < 6 {
		v /= 1024
		unit++
	}
	digits := 2
	switch {
	case v >= 100:
		digits = 0
	case v >= 10:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[unit]
}

// when renders a record's time to the second; the zero time is a dash.
func when(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// elapsed renders milliseconds.
func elapsed(ms int64) string {
	if ms < 10_000 && ms > -10_000 {
		return number(ms) + " ms"
	}
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}

// plural is "1 request", "2 requests", "2 policies".
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return number(n) + " " + stem + "ies"
	}
	return number(n) + " " + noun + "s"
}
