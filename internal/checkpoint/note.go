package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// The rules of this file are: a note has one spelling, and what Open takes is
// what Sign could have written, but for signatures of other keys; nothing is
// read from a note before it is known to be one.

// Limits of a note.
const (
	// MaxNote is the longest note, in bytes. Ours have about 300; the rest is
	// room for the sixteen signatures that the specification wants accepted.
	MaxNote = 4096
	// maxName is the longest name of a key, in bytes.
	maxName = 128
	// maxSession is the longest session id, in bytes.
	maxSession = 64
)

// timeForm is how a checkpoint writes its time.
const timeForm = "2006-01-02T15:04:05.000Z"

// Checkpoint says what a log was at one moment.
type Checkpoint struct {
	Origin  string    // the log's name, which is its key's
	Size    uint64    // how many records, from the log's first
	Root    Hash      // of the tree of those records
	Session string    // session_id of the engine that signed
	Time    time.Time // when, by the signer's clock; whole milliseconds, UTC
}

// text is the part of the note that is signed.
func (c *Checkpoint) text() string {
	return c.Origin + "\n" + strconv.FormatUint(c.Size, 10) + "\n" + c.Root.String() +
		"\nsession " + c.Session + "\ntime " + c.Time.Format(timeForm) + "\n"
}

// check reports what has no spelling in a note.
func (c *Checkpoint) check() error {
	switch year := c.Time.Year(); {
	case !isName(c.Origin):
		return fmt.Errorf("%q is not a name: use 1 to %d characters of ASCII without spaces and +", c.Origin, maxName)
	case c.Size > MaxSize:
		return fmt.Errorf("a size of %d is beyond 2^62", c.Size)
	case c.Size == 0 && c.Root != sha256.Sum256(nil):
		return errors.New("size 0 with the root of a tree that is not empty")
	case !isWord(c.Session, maxSession):
		return fmt.Errorf("%q is not a session id: use 1 to %d characters of ASCII without spaces", c.Session, maxSession)
	case year < 0 || year > 9999:
		return fmt.Errorf("the year %d has more than four digits", year)
	}
	return nil
}

// Open reads a note and looks for a signature by a key of v that is named like
// the note's origin: with one, authenticated is true.
//
// The error is nil for a note that no key of v signed. It says what is wrong
// with a note that is malformed, or whose signature by a key of v is false; the
// Checkpoint is then empty.
func Open(msg []byte, v Verifiers) (c Checkpoint, authenticated bool, err error) {
	if len(msg) > MaxNote {
		return Checkpoint{}, false, fmt.Errorf("checkpoint note: longer than %d bytes", MaxNote)
	}
	n, err := note.Open(msg, v.list)
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		n = unverified.Note
	case errors.As(err, &invalid):
		return Checkpoint{}, false, fmt.Errorf("checkpoint note: the signature by %s+%08x is false: the note was changed or forged", invalid.Name, invalid.Hash)
	case err != nil:
		return Checkpoint{}, false, fmt.Errorf("checkpoint note: %w", err)
	}
	if c, err = parseText(n.Text); err != nil {
		return Checkpoint{}, false, fmt.Errorf("checkpoint note: %w", err)
	}
	if err := checkSignatures(msg[len(n.Text)+1:]); err != nil {
		return Checkpoint{}, false, fmt.Errorf("checkpoint note: %w", err)
	}
	authenticated = slices.ContainsFunc(n.Sigs, func(s note.Signature) bool { return s.Name == c.Origin })
	return c, authenticated, nil
}

// parseText reads the five lines that are signed.
func parseText(text string) (c Checkpoint, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 5 {
		return c, fmt.Errorf("%d lines of text; want origin, size, root, session and time", len(lines))
	}
	c.Origin = lines[0]
	if c.Size, err = parseDecimal(lines[1]); err != nil {
		return Checkpoint{}, fmt.Errorf("size: %w", err)
	}
	if c.Root, err = parseHash(lines[2]); err != nil {
		return Checkpoint{}, fmt.Errorf("root: %w", err)
	}
	var ok bool
	if c.Session, ok = strings.CutPrefix(lines[3], "session "); !ok {
		return Checkpoint{}, fmt.Errorf("line 4 is %q; want \"session\" and an id", lines[3])
	}
	at, _ := strings.CutPrefix(lines[4], "time ")
	if c.Time, err = time.Parse(timeForm, at); err != nil {
		return Checkpoint{}, fmt.Errorf("line 5 is %q; want \"time\" and a time like %s", lines[4], timeForm)
	}
	if err := c.check(); err != nil {
		return Checkpoint{}, err
	}
	if c.text() != text { // what is left: a time that has another spelling
		return Checkpoint{}, fmt.Errorf("not in its canonical form, which is %q", c.text())
	}
	return c, nil
}

// checkSignatures holds lines, which note.Open has read as signatures, to one
// spelling: it would let base64 with unused bits set and repetitions pass.
func checkSignatures(lines []byte) error {
	seen := map[string]bool{}
	for line := range bytes.Lines(lines) {
		name, b64, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(string(line), "— "), "\n"), " ")
		sig, err := base64.StdEncoding.Strict().DecodeString(b64)
		if err != nil || len(sig) < 5 {
			return fmt.Errorf("the signature by %q is not canonical base64", name)
		}
		key := fmt.Sprintf("%s+%08x", name, binary.BigEndian.Uint32(sig))
		if seen[key] {
			return fmt.Errorf("two signatures by %s", key)
		}
		seen[key] = true
	}
	return nil
}

// parseDecimal reads digits without a sign and without leading zeros, up to
// MaxSize.
func parseDecimal(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%q is not a decimal number without sign and leading zeros", s)
	}
	if n > MaxSize {
		return 0, fmt.Errorf("%d is beyond 2^62", n)
	}
	return n, nil
}

// parseHash reads what Hash.String wrote.
func parseHash(s string) (h Hash, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(h) || base64.StdEncoding.EncodedLen(len(h)) != len(s) {
		return Hash{}, fmt.Errorf("%q is not 32 bytes in canonical base64", s)
	}
	return Hash(b), nil
}

// isName reports whether s can name a key and its log. The note package takes
// more; an auditor should be able to read it aloud.
func isName(s string) bool { return isWord(s, maxName) && !strings.Contains(s, "+") }

// isWord reports whether s is 1 to limit printable ASCII characters, no space.
func isWord(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
