package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

const (
	// maxAnchored is how many checkpoints of an anchor are compared: a year
	// and four months at one every ten seconds. Each takes 56 bytes.
	maxAnchored = 1 << 22
	// recordStart begins a record, and stands in no note.
	recordStart = `{"agent_identity":`
)

// anchored is a checkpoint that was kept outside the log.
type anchored struct {
	size   uint64
	root   checkpoint.Hash
	ms     int64 // its time, Unix milliseconds
	signed bool  // by a key that was given
}

func (a *anchored) time() string { return time.UnixMilli(a.ms).UTC().Format(timeLayout) }

// anchor is what was kept outside the log, smallest size first.
type anchor struct {
	notes   []anchored
	foreign int64 // notes that no given key signed, which count for nothing
	origin  string
}

// readAnchor reads notes, or lines of a log from which the checkpoints are
// taken: captured standard output, in which other lines are left out, and what
// a platform puts in front of each line. With keys
// only what they signed counts: who can add to an anchor may not be who can
// sign. Without, the anchor is trusted, and must be one log's.
func readAnchor(r io.Reader, keys checkpoint.Verifiers) (anchor, error) {
	var a anchor
	br := bufio.NewReaderSize(r, sourceBuffer)
	head, err := br.Peek(sourceBuffer)
	if err != nil && !errors.Is(err, io.EOF) {
		return a, fmt.Errorf("reading the anchor: %w", err)
	}
	n := 0
	take := func(msg []byte) error {
		n++
		if err := a.take(msg, keys); err != nil {
			return fmt.Errorf("checkpoint %d: %w", n, err)
		}
		return nil
	}
	if bytes.Contains(head, []byte(recordStart)) {
		err = eachCheckpoint(br, take)
	} else {
		err = checkpoint.EachAnchored(br, take)
	}
	if err != nil {
		return a, fmt.Errorf("the anchor: %w", err)
	}
	if len(a.notes) == 0 {
		if a.foreign > 0 {
			return a, fmt.Errorf("%w: the anchor has %d checkpoints, and none of them is signed by a key that was given: see that the key is this log's", ErrUnauthenticated, a.foreign)
		}
		return a, errors.New("the anchor has no checkpoint: see that it is the file, or the captured output, that checkpoints went to")
	}
	slices.SortStableFunc(a.notes, func(x, y anchored) int { return cmp.Compare(x.size, y.size) })
	return a, nil
}

func (a *anchor) take(msg []byte, keys checkpoint.Verifiers) error {
	c, signed, err := checkpoint.Open(msg, keys)
	switch {
	case err != nil:
		return err
	case !signed && len(keys.Keys()) > 0:
		a.foreign++
		return nil
	case !signed && a.origin != "" && c.Origin != a.origin:
		return fmt.Errorf("the checkpoints before are of %s and this one is of %s, of two logs, or of one whose key was changed: give its keys with --key", a.origin, c.Origin)
	case len(a.notes) == maxAnchored:
		return fmt.Errorf("more than %d checkpoints: give the part since the last audit", maxAnchored)
	}
	a.origin = c.Origin
	a.notes = append(a.notes, anchored{size: c.Size, root: c.Root, ms: c.Time.UnixMilli(), signed: signed})
	return nil
}

// eachCheckpoint calls fn with the checkpoints of the records among the lines
// of r.
func eachCheckpoint(r io.Reader, fn func(msg []byte) error) error {
	lines := lineReader{br: bufio.NewReaderSize(r, sourceBuffer)}
	var l line
	for {
		b, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, errTooLong):
			return fmt.Errorf("reading it: %w", err)
		case err != nil:
			continue
		}
		start := bytes.Index(b, []byte(recordStart))
		if start < 0 || l.parse(b[start:len(b)-1]) != nil || l.checkpoint == nil {
			continue
		}
		if err := fn([]byte(stringOf(l.checkpoint))); err != nil {
			return err
		}
	}
}

// compare holds tree, the log as far as it was read, against what was anchored.
func (v *verifier) compare(tree *checkpoint.Frontier) error {
	for a := &v.anchor; len(a.notes) > 0 && a.notes[0].size <= tree.Size(); a.notes = a.notes[1:] {
		n := &a.notes[0]
		if n.size < tree.Size() { // before the first record that was given
			v.report.AnchorBefore++
			continue
		}
		if n.root != tree.Root() {
			from := ", or the anchor is another log's"
			if v.report.AnchorSize > 0 {
				from = fmt.Sprintf(", though the first %d are", v.report.AnchorSize)
			}
			return fmt.Errorf("the log was rewritten: its first %d records are not those that were anchored at %s%s", n.size, n.time(), from)
		}
		v.report.Anchored++
		v.report.AnchorSize, v.report.AnchorTime = n.size, n.time()
		if n.signed { // by the session of the last line, since each signs behind its own start
			v.found()
			v.covered(n.size, n.time())
		}
	}
	return nil
}

// cut reports that an anchor knows of more records than the log has.
func (v *verifier) cut() error {
	if len(v.anchor.notes) == 0 {
		return nil
	}
	return &Damage{File: v.name, Line: v.lines + 1, Offset: v.offset, What: v.missing()}
}

// missing says what an anchor knows of and the log has not.
func (v *verifier) missing() string {
	n := &v.anchor.notes[len(v.anchor.notes)-1]
	size := v.chain.tree.Size()
	what := fmt.Sprintf("the last %d records that were anchored at %s are missing: the log's end was cut off, or files behind this one were not given", n.size-size, n.time())
	if v.report.Anchored == 0 {
		what += fmt.Sprintf(", or it is another log: no checkpoint of the anchor is over its %d records or fewer", size)
	}
	return what
}
