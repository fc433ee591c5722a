package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// Damage is the first thing in a log that is not as the engine wrote it.
// Everything before it is proven, nothing behind it is.
type Damage struct {
	File   string
	Line   int64 // from 1
	Offset int64 // of the line's first byte
	What   string

	torn bool // the file ends before the line does
}

func (d *Damage) Error() string {
	return fmt.Sprintf("%s: line %d (byte %d): %s", d.File, d.Line, d.Offset, d.What)
}

// follower walks a chain line by line. Open and Verify both go through it, so
// that what one resumes from is what the other accepts.
type follower struct {
	chainState
	before  [hashLen]byte // prev_hash of the last line
	records int64         // taken
	hash    hash.Hash
	sum     checkpoint.Hash
	hex     [hashLen]byte
	line    line // the last line that was taken
	spell   respeller

	first   uint64 // seq of the first line that was taken: 1, or a segment's
	segment string // base name of the segment that the first line continues

	keys   checkpoint.Verifiers  // whose signatures count
	met    checkpoint.Checkpoint // in the last line that has one
	signed bool                  // … by one of keys
}

func newFollower() *follower { return &follower{hash: sha256.New()} }

// identify takes a line without its newline apart and checks its event_hash,
// which is then f.sum. The views in f.line alias b, or its canonical form, until
// the next call.
func (f *follower) identify(b []byte) error {
	l := &f.line
	raw := b
	b, err := f.spell.parse(l, raw)
	if err != nil {
		return converted(raw, err)
	}
	f.hash.Reset()
	f.hash.Write(b[:l.cut])
	f.hash.Write(b[l.resume:])
	f.hash.Sum(f.sum[:0])
	hex.Encode(f.hex[:], f.sum[:])
	if !bytes.Equal(f.hex[:], l.hash) {
		return errors.New("event_hash is not the hash of this record: the record was changed")
	}
	return nil
}

// next takes the line that follows, as identify does.
func (f *follower) next(b []byte) error {
	if err := f.identify(b); err != nil {
		return err
	}
	l := &f.line
	if err := f.joins(l); err != nil {
		return err
	}
	if l.checkpoint != nil {
		if err := f.checkpoint(l); err != nil {
			return err
		}
	}
	f.before = f.prev
	f.seq++
	f.add(&f.sum)
	f.records++
	return nil
}

// joins checks that l is the record behind the last, or begins a log or a
// segment of one.
func (f *follower) joins(l *line) error {
	switch {
	case f.records == 0 && l.prev != nil:
		h, err := headerOf(l)
		if err != nil {
			return err
		}
		f.chainState, f.segment = h.chainState, h.segment
	case f.has && l.prev == nil:
		return misplaced("a new chain begins: the file was replaced, or what stood before is from another log")
	case f.has && !bytes.Equal(l.prev, f.prev[:]):
		return f.apart(l)
	case f.has && l.frontier != nil:
		h, err := headerOf(l)
		if err != nil {
			return err
		}
		if h.tree != f.tree {
			return misplaced("payload.frontier is not that of the records before: this file belongs to another log, or they were rewritten")
		}
	}
	if f.records == 0 {
		f.first = f.seq + 1
	}
	if l.seq == nil { // the library's own records have none, and count
		return nil
	}
	seq, err := strconv.ParseUint(string(l.seq), 10, 64)
	if err != nil {
		return errors.New("payload.seq is not a count")
	}
	if seq != f.seq+1 {
		return fmt.Errorf("payload.seq is %d behind %d", seq, f.seq)
	}
	return nil
}

// misplaced says that a record does not continue what stands before it.
type misplaced string

func (m misplaced) Error() string { return string(m) }

// apart says why l, which continues a record, does not continue the last.
func (f *follower) apart(l *line) error {
	if bytes.Equal(l.prev, f.before[:]) {
		return misplaced("prev_hash names the record before the last: two writers continued one record, or a record was inserted")
	}
	what := "prev_hash is not the hash of the record before: "
	if h, err := headerOf(l); err == nil {
		return misplaced(what + fmt.Sprintf("this file continues %s with record %d, and record %d is the last that stands before it: files are missing, in another order, or of another log",
			clean(h.segment), h.seq+1, f.seq))
	}
	what += "a record was removed, inserted or moved"
	if seq, err := strconv.ParseUint(string(l.seq), 10, 64); err == nil && seq != f.seq+1 {
		what += fmt.Sprintf(" (payload.seq is %d, and %d was to come)", seq, f.seq+1)
	}
	return misplaced(what)
}

// converted adds to err what a program may have done to the line b that copied
// or opened the file as text.
func converted(b []byte, err error) error {
	switch {
	case bytes.HasSuffix(b, []byte("\r")):
		return fmt.Errorf("%w; the line ends with a carriage return, which no record does: copy the file anew, as it is", err)
	case bytes.HasPrefix(b, []byte("\ufeff")):
		return fmt.Errorf("%w; a byte order mark stands in front of it, which no record has: copy the file anew, as it is", err)
	}
	return err
}

// checkpoint checks what l says of the records before it, and that it says
// nothing else: until the next checkpoint no signature is over l itself, and it
// is taken for what the engine wrote all the same.
func (f *follower) checkpoint(l *line) error {
	c, signed, err := checkpoint.Open([]byte(stringOf(l.checkpoint)), f.keys)
	reason := stringOf(l.reason)
	switch {
	case err != nil:
		return fmt.Errorf("payload.checkpoint: %w", err)
	case string(l.event) != EngineHeartbeat.String(), reason != reasonCheckpoint && reason != reasonSegment, l.more:
		return errors.New("payload.checkpoint stands in a record that says more than a checkpoint does: the record was changed")
	case c.Session != string(l.session):
		return fmt.Errorf("payload.checkpoint is of session %s in a record of another: the record was changed", c.Session)
	case c.Size != f.seq:
		return fmt.Errorf("payload.checkpoint is of %d records behind %d", c.Size, f.seq)
	case c.Root != f.tree.Root():
		return errors.New("payload.checkpoint is of other records than those before it: they were rewritten")
	}
	f.met, f.signed = c, signed
	return nil
}

// lineReader reads lines of up to maxLine bytes. The engine's own fit in its
// buffer; longer ones are put together in long.
type lineReader struct {
	br   *bufio.Reader
	long []byte
}

// errTooLong is a line beyond maxLine, which was read to its end.
var errTooLong = errors.New("line too long")

// next returns the next line with its newline, valid until the next call. At
// the end of the file the error is io.EOF, with what stands behind the last
// newline, or the first maxLine bytes of that.
func (r *lineReader) next() ([]byte, error) {
	b, err := r.br.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return b, err
	}
	tooLong := false
	for r.long = r.long[:0]; ; {
		if len(r.long)+len(b) > maxLine {
			tooLong = true
			b = b[:maxLine-len(r.long)]
		}
		r.long = append(r.long, b...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		b, err = r.br.ReadSlice('\n')
	}
	if err == nil && tooLong {
		err = errTooLong
	}
	return r.long, err
}

// eachLine calls fn with every line of r, without its newline, until fn
// returns an error. It returns the offset behind the last line that fn took
// and a *Damage for what fn refused, for a line that is too long and for an
// end without a newline; or r's error as it is. An end without a newline is
// torn whatever its length: a power cut leaves blocks of zeros.
func eachLine(name string, r io.Reader, fn func(b []byte) error) (good int64, err error) {
	lines := lineReader{br: bufio.NewReaderSize(r, 64<<10)}
	for n := int64(1); ; n++ {
		b, err := lines.next()
		if err == nil {
			if err = fn(b[:len(b)-1]); err == nil {
				good += int64(len(b))
				continue
			}
			if errors.Is(err, errStop) {
				return good, err
			}
			return good, &Damage{File: name, Line: n, Offset: good, What: err.Error()}
		}
		damage := &Damage{File: name, Line: n, Offset: good}
		switch {
		case errors.Is(err, io.EOF) && len(b) == 0:
			return good, nil
		case errors.Is(err, io.EOF):
			damage.torn = true
			damage.What = "the file ends in the middle of a record"
			return good, damage
		case errors.Is(err, errTooLong):
			damage.What = fmt.Sprintf("longer than %d bytes", maxLine)
			return good, damage
		default:
			return good, fmt.Errorf("reading %s: %w", name, err)
		}
	}
}

// errStop is what a caller of eachLine returns when it has seen enough.
var errStop = errors.New("stop")
