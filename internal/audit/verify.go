package audit

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// VerifyOptions says where Verify reads from, and what it holds the log
// against.
type VerifyOptions struct {
	Stdin io.Reader // what the file name "-" stands for; nil: no such file

	// Keys are the log's verifier keys, from somewhere else than the log. With
	// them it is an error if no checkpoint is signed by one of them.
	Keys checkpoint.Verifiers
	// Anchor has checkpoints that were kept outside the log: an anchor file, or
	// lines of the log as they were captured elsewhere. It should be no older
	// than the copy of the log that is verified. nil: none.
	Anchor io.Reader

	// Each is handed every record that was verified, and which of the files it is
	// in, from 0. What stands behind may still be damage. The Entry is reused.
	// nil: nobody.
	Each func(file int, e *Entry)

	// Progress is told how many bytes of the files have been read, some 64 KiB
	// apart. nil: nobody.
	Progress func(bytes int64)
}

// ErrUnauthenticated is what Verify returns if keys were given, and the log,
// or its last part, is not signed by any of them.
var ErrUnauthenticated = errors.New("not authenticated")

// Limits of what Verify keeps.
const (
	maxEventNames = 64
	maxIncomplete = 1 << 16 // requests in flight that are told apart
	maxNamed      = 20      // … that a Report names
)

// Verify reads the files as one log, in the order given, and checks every
// line: its form (the package comment), its hash, that it continues the line
// before it across files, payload.seq where there is one, and that a checkpoint
// is over exactly the records before it. The first file may begin with the
// header of a later segment. It holds one line, the ids of requests in flight
// and the anchor in memory, whatever the size of the files.
//
// The error is a *Damage that names the first bad line, ErrUnauthenticated, or
// that of reading a file; the Report then covers what stands before it.
func Verify(files []string, o VerifyOptions) (Report, error) {
	v := newVerifier(o)
	err := v.run(files)
	v.end()
	var damage *Damage
	v.report.damaged = errors.As(err, &damage)
	return v.report, err
}

type verifier struct {
	o      VerifyOptions
	report Report
	chain  *follower
	anchor anchor // what of it is still to come

	name    string            // of the file that is being read
	lines   int64             // of that file
	offset  int64             // behind the last of those
	read    int64             // bytes of all files, as they are on disk
	session string            // of the last line
	began   uint64            // seq of its first record
	known   uint64            // records up to the last checkpoint that a given key signed, and that
	open    map[string]uint64 // :: id of an allowed request without a completion yet → its decision's seq
	ts      []byte            // of the last line

	entry   Entry    // for o.Each
	stray   string   // the first checkpoint behind Covered that no key signed
	proving *proving // nil: no proof is asked for
}

func newVerifier(o VerifyOptions) *verifier {
	v := &verifier{o: o, chain: newFollower(), open: map[string]uint64{}}
	v.chain.keys = o.Keys
	v.report.Events = map[string]int64{}
	return v
}

func (v *verifier) run(files []string) error {
	if len(files) == 0 {
		return fmt.Errorf("verifying an audit log: no file given")
	}
	if v.o.Anchor != nil {
		var err error
		if v.anchor, err = readAnchor(v.o.Anchor, v.o.Keys); err != nil {
			return err
		}
		v.report.AnchorForeign = v.anchor.foreign
	}
	for i, name := range files {
		if err := v.file(name); err != nil {
			return v.torn(err, i == len(files)-1)
		}
	}
	if err := v.cut(); err != nil {
		return err
	}
	return v.authentic()
}

func (v *verifier) file(name string) error {
	s, err := v.o.open(name, &v.read)
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	defer func() { _ = s.Close() }() // it was read only
	v.name, v.lines, v.offset = name, 0, 0
	good, err := eachLine(name, s.Reader, v.line)
	v.report.Files++
	v.report.Bytes += good
	if corrupt(err) {
		return &Damage{File: name, Line: v.lines + 1, Offset: v.offset, What: fmt.Sprintf("what was compressed is cut off or changed (%v)", err)}
	}
	return err
}

// torn says of an end that is no whole record what it can be. last: no file
// follows. What a crash leaves and what somebody leaves who cuts the log off look
// the same, but for what was anchored.
func (v *verifier) torn(err error, last bool) error {
	var d *Damage
	switch {
	case !errors.As(err, &d) || !d.torn:
	case !last:
		d.What += ", and others were given behind it"
	case len(v.anchor.notes) > 0:
		d.What += "; " + v.missing()
	default:
		d.What += ": a crash leaves it so, and an engine that runs for a moment; the engine's next start cuts that end off and records it"
	}
	return err
}

// corrupt reports an error of what gzip compressed, not of reading it.
func corrupt(err error) bool {
	var flated flate.CorruptInputError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.As(err, &flated)
}

// open opens a file and tells Progress how far the reading has come; read is
// that in bytes, of this file and those before.
func (o *VerifyOptions) open(name string, read *int64) (*source, error) {
	if o.Progress == nil {
		return openSource(name, o.Stdin, nil)
	}
	before := *read
	return openSource(name, o.Stdin, func(n int64) {
		*read = before + n
		o.Progress(*read)
	})
}

func (v *verifier) line(b []byte) error {
	if err := v.chain.next(b); err != nil {
		var m misplaced
		if v.lines == 0 && v.report.Files > 0 && errors.As(err, &m) {
			err = fmt.Errorf("%w (files are given oldest first, like audit.log.0* audit.log)", err)
		}
		return err
	}
	r, l := &v.report, &v.chain.line
	if r.Records++; r.Records == 1 {
		if err := v.first(l); err != nil {
			return err
		}
	}
	r.FirstSeq, r.LastSeq = v.chain.first, v.chain.seq
	if n, ok := r.Events[string(l.event)]; ok || len(r.Events) < maxEventNames {
		r.Events[string(l.event)] = n + 1
	} else {
		r.Events["other"]++
	}
	if string(l.session) != v.session {
		v.settle()
		v.session, v.began = string(l.session), v.chain.seq
		r.Sessions++
	}
	v.follow(l)
	v.clock(l)
	if l.checkpoint != nil {
		if err := v.checkpoint(l); err != nil {
			return err
		}
	}
	if v.proving != nil {
		v.proving.prover.Append(&v.chain.sum)
	}
	v.lines++
	v.offset += int64(len(b)) + 1
	if err := v.compare(&v.chain.tree); err != nil {
		return err
	}
	if v.o.Each != nil {
		v.entry.decode(b, l)
		v.entry.Line = v.lines
		v.o.Each(v.report.Files, &v.entry)
	}
	return nil
}

// first takes the first line of all, which chain has taken.
func (v *verifier) first(l *line) error {
	v.report.First = string(l.ts)
	v.report.Before = v.chain.first - 1
	if v.report.Before > 0 && v.report.Files > 0 {
		return fmt.Errorf("the records 1 to %d are missing: the files that were given before this one are empty", v.report.Before)
	}
	var past header
	if l.prev != nil {
		var err error
		if past, err = headerOf(l); err != nil {
			return err
		}
	}
	if v.proving != nil {
		if err := v.proving.begin(past.tree); err != nil {
			return err
		}
	}
	return v.compare(&past.tree)
}

// checkpoint notes the checkpoint of l, which chain has held against the
// records before l.
func (v *verifier) checkpoint(l *line) error {
	r, c := &v.report, &v.chain.met
	r.Checkpoints++
	r.CheckpointSize, r.CheckpointTime = c.Size, c.Time.Format(timeLayout)
	switch {
	case v.chain.signed:
		r.Signed++
		v.found()
		v.covered(c.Size, r.CheckpointTime)
	case v.stray == "":
		v.stray = fmt.Sprintf("%s: line %d: the checkpoint of %s over %d records", v.name, v.lines+1, c.Origin, c.Size)
	}
	if v.proving != nil && (v.chain.signed || !v.keyed()) {
		return v.proving.covered([]byte(stringOf(l.checkpoint)))
	}
	return nil
}

// found notes what stands before the session that signs here and was not signed
// before it began: its engine can only say that it found that. A session's id
// cannot be guessed, so nobody writes for it ahead of time.
func (v *verifier) found() {
	r, first, last := &v.report, v.known+1, v.began-1
	if r.Records > 1 && last >= first { // a header at the very front signs for files that were not given
		if r.Found += last - first + 1; r.FoundLast == 0 {
			r.FoundFirst, r.FoundLast = first, last
		}
	}
	v.known = v.chain.seq // with the record of the checkpoint, if it stands there
}

// keyed reports whether keys were given.
func (v *verifier) keyed() bool { return len(v.o.Keys.Keys()) > 0 }

// covered notes that a signature by a given key is over the first size records.
func (v *verifier) covered(size uint64, at string) {
	v.report.Authenticated = true
	v.report.Covered, v.report.CoveredTime = size, at
	v.stray = ""
}

// authentic reports what no given key has signed although the engine did sign.
func (v *verifier) authentic() error {
	switch {
	case !v.keyed():
		return nil
	case !v.report.Authenticated && v.stray == "":
		return fmt.Errorf("%w: no record of the log is signed: it was written without --audit-key, or anew by somebody who has no key", ErrUnauthenticated)
	case v.stray != "":
		return fmt.Errorf("%w: %s is not signed by a key that was given: the log was signed anew by somebody else, or its key was changed; if you trust that key, give it too", ErrUnauthenticated, v.stray)
	}
	return nil
}

// clock notes a ts that goes back, and what the engine wrote of a clock that
// was set.
func (v *verifier) clock(l *line) {
	back := len(l.ts) == len(v.ts) && string(l.ts) < string(v.ts)
	if back || l.clockJump != nil {
		r := &v.report
		if r.ClockJumps++; r.ClockJumps == 1 {
			r.FirstJump = v.jump(l)
		}
	}
	v.ts = append(v.ts[:0], l.ts...)
}

// jump says where and how far the clock was set.
func (v *verifier) jump(l *line) string {
	var by time.Duration
	if ms, err := strconv.ParseInt(string(l.clockJump), 10, 64); err == nil {
		by = time.Duration(ms) * time.Millisecond
	} else {
		from, err1 := time.Parse(time.RFC3339Nano, string(v.ts))
		to, err2 := time.Parse(time.RFC3339Nano, string(l.ts))
		if err1 == nil && err2 == nil {
			by = to.Sub(from)
		}
	}
	return fmt.Sprintf("%s: line %d: by %v", v.name, v.lines+1, by)
}

// follow pairs decisions with completions.
func (v *verifier) follow(l *line) {
	if l.id == nil {
		return
	}
	switch string(l.phase) {
	case `"decision"`:
		if string(l.event) != "egress_allowed" {
			return
		}
		if _, ok := v.open[string(l.id)]; !ok && len(v.open) < maxIncomplete {
			v.open[string(l.id)] = v.chain.seq
		}
	case `"complete"`:
		if _, ok := v.open[string(l.id)]; !ok && len(v.open) < maxIncomplete {
			v.report.Unasked++
		}
		delete(v.open, string(l.id))
	}
}

// settle counts what a session left open: ids are one session's own.
func (v *verifier) settle() {
	v.report.Incomplete += int64(len(v.open))
	for _, id := range slices.Sorted(maps.Keys(v.open)) {
		if len(v.report.IncompleteIDs) == maxNamed {
			break
		}
		v.report.IncompleteIDs = append(v.report.IncompleteIDs, fmt.Sprintf("record %d, %s/%s", v.open[id], v.session, strings.Trim(id, `"`)))
	}
	clear(v.open)
}

func (v *verifier) end() {
	v.settle()
	v.report.Last = string(v.ts)
	v.report.Respelled = v.chain.spell.lines
	if v.chain.has {
		v.report.Head = string(v.chain.prev[:])
	}
}
