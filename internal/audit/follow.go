package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"time"
)

// The rules of this file are: a log is read by position, which is payload.seq
// and, for records without one, the count from the log's first record; a file
// is left only when it is no longer the one at the log's path and was read to
// its end after that was seen, since what is written before a rename is in it;
// the file that follows is the one whose first record is the next; anything
// else is an error, never a silent step over records. At most one line is held.

// followEvery is how long Follow waits at the end of a log before it looks
// again.
const followEvery = 250 * time.Millisecond

// FollowOptions says where Follow begins and how it waits. The zero value
// reads everything that is there and then waits for more.
type FollowOptions struct {
	// From is the position of the first record wanted, from 1. 0 is the oldest
	// record that is there.
	From uint64
	// Committed returns the position of the last record that is not taken back:
	// Stats.Seq of the log that is being written in this process. What stands
	// behind it is left for later, since a writer that runs out of room cuts
	// back what it wrote of a batch. nil: every whole line counts.
	Committed func() uint64
	// RawOnly sets Raw, Seq and Line of an Entry and nothing else, which
	// allocates nothing for a record.
	RawOnly bool
	// Idle is called each time there is nothing to read, before waiting. An
	// error ends Follow and is returned as it is. nil: nothing is called.
	Idle func() error
	Poll time.Duration   // how long to wait before looking again; 0: 250 ms
	Wake <-chan struct{} // ends such a wait early; nil: nothing does
}

// Gap means that records were removed before they were read.
type Gap struct {
	Log         string
	First, Last uint64 // of the missing records
}

func (g *Gap) Error() string {
	return fmt.Sprintf("%s: records %d to %d are gone: their segment was removed before they were read", g.Log, g.First, g.Last)
}

// Follow reads the log whose active file is path, across its rotated segments
// (path.000000000001 and so on, plain or gzip, with .gz behind the name or
// not), and then waits for more. It hands each record from o.From on to fn, in
// order and without a gap, with Entry.Seq set to the position. The Entry is
// reused; Raw is valid during the call only.
//
// Follow needs no lock and disturbs no writer: it reads whole lines only and
// goes on through rotations that happen under it. It checks the form and the
// position of records and not their chain: that is Verify's.
//
// It ends with the error of fn or Idle as it is, with ctx's, with a *Gap, with a
// *Damage, or with what happened to the file: it was cut, moved away or
// replaced. What fn was given up to then is right.
func Follow(ctx context.Context, path string, o FollowOptions, fn func(*Entry) error) error {
	if o.Poll <= 0 {
		o.Poll = followEvery
	}
	t := trail{path: path, o: o}
	defer t.close()
	if err := t.begin(); err != nil {
		return err
	}
	timer := time.NewTimer(o.Poll)
	defer timer.Stop()
	for {
		more, err := t.step(fn)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case more:
			continue
		}
		if o.Idle != nil {
			if err := o.Idle(); err != nil {
				return err
			}
		}
		timer.Reset(o.Poll)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-o.Wake:
		case <-timer.C:
		}
	}
}

// Span returns the positions of the oldest and the newest record of the log
// whose active file is path; 0, 0 if it has none. It reads ends of files, and
// whole files only where records have no seq.
func Span(path string) (first, last uint64, err error) {
	t := trail{path: path}
	defer t.close()
	if err := t.begin(); err != nil {
		return 0, 0, err
	}
	if first = t.cur.first; first == 0 {
		return 0, 0, nil
	}
	newest, err := t.find(math.MaxUint64)
	if err != nil {
		return 0, 0, err
	}
	defer newest.close()
	last, err = newest.ends()
	if err == nil && last == 0 {
		err = fmt.Errorf("%s has no record", newest.name)
	}
	return first, last, err
}

// trail is where Follow is.
type trail struct {
	path string
	o    FollowOptions
	cur  *fileReader
	left bool // cur is no longer at path, which was seen before it was last read to its end

	committed uint64 // what o.Committed said last: it takes the log's lock

	spell respeller
	line  line
	entry Entry
}

func (t *trail) close() {
	if t.cur != nil {
		t.cur.close()
	}
}

// step reads one record, or goes on into the next file. It reports whether
// there may be more at once.
func (t *trail) step(fn func(*Entry) error) (more bool, err error) {
	if t.o.Committed != nil && t.cur.pos >= t.committed {
		t.committed = t.o.Committed()
		t.cur.rewind() // what is read already may have been taken back, and written otherwise
		if t.cur.pos >= t.committed {
			return false, nil
		}
	}
	b, err := t.cur.next()
	if errors.Is(err, errNoLine) {
		return t.advance()
	}
	if err != nil {
		return false, err
	}
	if t.cur.pos < t.o.From {
		return true, nil
	}
	if err := t.check(b); err != nil {
		return false, &Damage{File: t.cur.name, Line: t.cur.line(), Offset: t.cur.off - int64(len(b)) - 1, What: err.Error()}
	}
	if t.o.RawOnly {
		t.entry.Raw = b
	} else {
		t.entry.decode(b, &t.line)
	}
	t.entry.Line, t.entry.Seq = t.cur.line(), t.cur.pos
	return true, fn(&t.entry)
}

// check parses b, the record at t.cur.pos.
func (t *trail) check(b []byte) error {
	if _, err := t.spell.parse(&t.line, b); err != nil {
		return err
	}
	if t.line.seq == nil {
		return nil
	}
	if seq, err := strconv.ParseUint(string(t.line.seq), 10, 64); err != nil || seq != t.cur.pos {
		return fmt.Errorf("payload.seq is %s where record %d must stand: records were removed, or the file was replaced", t.line.seq, t.cur.pos)
	}
	return nil
}

// advance leaves a file that was read to its end for the one behind it, if
// there is one.
func (t *trail) advance() (more bool, err error) {
	at, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("%s was moved away or deleted while it was read; put it back", t.path)
	case err != nil:
		return false, fmt.Errorf("looking at %s: %w", t.path, err)
	case os.SameFile(at, t.cur.id):
		if t.cur.zip == nil && at.Size() < t.cur.off {
			return false, fmt.Errorf("%s has %d bytes where %d were read: it was cut while it was read", t.path, at.Size(), t.cur.off)
		}
		return false, nil
	case !t.left && t.cur.zip == nil:
		t.left = true
		return true, nil
	}
	next, err := t.behind(t.cur.pos)
	if next == nil || err != nil {
		return false, err
	}
	t.cur.close()
	t.cur, t.left = next, false
	return true, nil
}

// begin opens the file that holds o.From.
func (t *trail) begin() (err error) {
	t.cur, err = t.find(t.o.From)
	if err != nil {
		return err
	}
	return t.cur.seek(t.o.From)
}

// listings is how often the directory is read before a segment counts as
// gone: one may be on its way to its .gz while we look.
const listings = 3

// find opens the file that holds the record at position from, or would if it
// were written: the newest one that begins there or before. 0 finds the oldest.
func (t *trail) find(from uint64) (*fileReader, error) {
	var oldest uint64
	for range listings {
		v, err := look(t.path)
		if err != nil {
			return nil, err
		}
		if v.active.first > 0 && v.active.first <= from || len(v.segments) == 0 && (from == 0 || v.active.first == 0) {
			return v.active, nil
		}
		v.active.close()
		if len(v.segments) == 0 {
			oldest = v.active.first
			break
		}
		i := len(v.segments) - 1
		for i > 0 && v.segments[i].First > from {
			i--
		}
		if oldest = v.segments[i].First; oldest > from && from != 0 {
			continue
		}
		if f, err := openSegment(v.segments[i]); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &Gap{Log: t.path, First: max(from, 1), Last: oldest - 1}
}

// behind opens the file whose first record comes next after the one at pos; nil
// if it is not there yet.
func (t *trail) behind(pos uint64) (*fileReader, error) {
	var above uint64
	for range listings {
		v, err := look(t.path)
		if err != nil {
			return nil, err
		}
		if v.active.first == pos+1 {
			return v.active, nil
		}
		v.active.close()
		i := slices.IndexFunc(v.segments, func(s Segment) bool { return s.First > pos })
		switch {
		case i >= 0 && v.segments[i].First == pos+1:
			if f, err := openSegment(v.segments[i]); !errors.Is(err, fs.ErrNotExist) {
				return f, err
			}
			above = 0
		case i >= 0:
			above = v.segments[i].First
		case v.active.first == 0:
			return nil, nil
		case v.active.first <= pos:
			return nil, fmt.Errorf("%s begins with record %d where %d comes next: the log was replaced by another one", t.path, v.active.first, pos+1)
		default:
			above = v.active.first
		}
	}
	return nil, &Gap{Log: t.path, First: pos + 1, Last: max(above, pos+2) - 1}
}
