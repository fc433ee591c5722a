package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// tail is where a file's chain ends, and what it begins with.
type tail struct {
	chainState
	last    time.Time   // ts of the last record; zero if there is none
	torn    []*tornTail // what was cut off and no record names, the newest first
	first   uint64      // seq of the file's first record; 0 if there is none
	began   time.Time   // ts of that record
	segment string      // base name of the segment that the file continues
	size    int64
}

// resume opens the file, reads all of it and gets s ready to append. It is the
// one way to a file: after a clean stop, after a crash, and after an I/O error.
//
// All of the file is checked, not its end alone: a log that is damaged further
// in must not grow, since nobody would look there again. It costs one read of
// the file, at some hundreds of megabytes a second; earlier segments are not
// read, as the file's header carries chain and tree on.
//
// A last line without its newline was being written when the engine or the
// machine died. It is cut off and kept (cutTail). A line that ends and is wrong
// is damage: no start.
func (s *sink) resume(now time.Time) (*tail, error) {
	f, err := s.openLocked()
	if err != nil {
		return nil, explain(s.path, err)
	}
	var t *tail
	if err = s.locked(); err == nil {
		t, err = s.examine(f, now)
	}
	if err == nil {
		err = s.settle(f, t)
	}
	// The file's name must survive a crash too: the file is perhaps new, or took
	// the place of another just when the directory could not be synced.
	if err == nil {
		if err = s.fs.syncDir(filepath.Dir(s.path)); err != nil {
			err = fmt.Errorf("audit log %s: syncing its directory: %w", s.path, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	st, err := f.stat()
	if err != nil {
		return nil, errors.Join(explain(s.path, err), f.close())
	}
	s.file, s.id, s.size, s.checked = f, st, t.size, time.Time{}
	s.first, s.began = max(t.first, 1), t.began
	if t.first == 0 {
		s.began = now
	}
	return t, nil
}

// openLocked opens the file that is at the path once it is locked: between the
// two, an engine that is just ending may have rotated it away.
func (s *sink) openLocked() (file, error) {
	for range 10 {
		f, err := s.fs.open(s.path)
		if err != nil {
			return nil, err
		}
		is, err := f.stat()
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		if at, err := s.fs.stat(s.path); err == nil && at.same(is) {
			return f, nil
		}
		_ = f.close() // it was rotated away; the next round has the new one
	}
	return nil, errInUse
}

// examine reads the whole of f, cuts a torn tail off and returns where the
// chain ends.
func (s *sink) examine(f file, now time.Time) (*tail, error) {
	st, err := f.stat()
	switch {
	case err != nil:
		return nil, explain(s.path, err)
	case !st.regular:
		return nil, fmt.Errorf("audit log %s: not a regular file; name a file with --audit-file, or use --audit-stdout", s.path)
	case st.open:
		s.logger.Warn("the audit log can be read or written by other users; its mode should be 0600", "file", s.path)
	}
	f.evict()
	e := examination{follower: newFollower(), anchor: s.anchored, recorded: map[string]bool{}}
	e.keys = s.keys
	size, err := eachLine(s.path, io.NewSectionReader(f, 0, st.size), e.next)
	var damage *Damage
	switch {
	case errors.As(err, &damage) && damage.torn:
		torn, err := s.cutTail(f, size, st.size, tornName(s.path, e.seq, now))
		if err != nil {
			return nil, err
		}
		s.logger.Warn("the audit log ended in the middle of a record, which was cut off and kept",
			"file", s.path, "bytes", torn.bytes, "kept", torn.file)
	case damage != nil:
		return nil, fmt.Errorf("audit log is damaged and is not continued: %w; keep the file as evidence and name a new one with --audit-file", err)
	case err != nil:
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if a := s.anchored; a != nil && a.Size > e.seq {
		return nil, fmt.Errorf("audit log %s ends with record %d, and its anchor says that there were %d at %s: its end was cut off, or it was replaced; keep the file as evidence and name a new one with --audit-file and a new anchor",
			s.path, e.seq, a.Size, a.Time.UTC().Format(timeLayout))
	}
	if len(s.keys.Keys()) > 0 && e.ours < e.seq {
		s.logger.Warn("the audit log ends with records that its key has not signed, and they are continued as they are: a crash leaves the last few so, and so does whoever writes the file meanwhile; see that its anchor agrees (audit verify --anchor)",
			"file", s.path, "first_seq", e.ours+1, "last_seq", e.seq)
	}
	torn, err := s.unrecorded(max(e.first, 1)-1, e.recorded)
	if err != nil {
		return nil, err
	}
	return &tail{chainState: e.chainState, last: parseTime(e.ts), torn: torn, first: e.first, began: e.began, segment: e.segment, size: size}, nil
}

// examination is a follower of the file that the log is to continue. It holds
// the records against the anchor, and collects what the log goes on with.
type examination struct {
	*follower
	anchor *checkpoint.Checkpoint // nil: nothing is known

	ours     uint64          // how many records our key has signed for, with the record that says so
	recorded map[string]bool // the names of torn tails that are in records
	ts       []byte          // of the last record
	began    time.Time       // ts of the first
}

func (e *examination) next(b []byte) error {
	if err := e.follower.next(b); err != nil {
		return err
	}
	e.ts = append(e.ts[:0], e.line.ts...)
	if e.line.checkpoint != nil && e.signed {
		e.ours = e.seq
	}
	if a := e.anchor; a != nil && a.Size+1 < e.first && e.ours < e.first {
		return fmt.Errorf("the file begins with record %d, the anchor knows of %d, and the log's key has not signed what is between", e.first, a.Size)
	}
	if e.records == 1 {
		e.began = parseTime(e.ts)
		if h, err := headerOf(&e.line); err == nil {
			if err := e.keepsAnchor(&h.chainState); err != nil {
				return err
			}
		}
	}
	noteTorn(&e.line, e.recorded)
	return e.keepsAnchor(&e.chainState)
}

// keepsAnchor checks the records so far against the anchor, where it is of
// that many.
func (e *examination) keepsAnchor(c *chainState) error {
	if a := e.anchor; a != nil && a.Size == c.seq && a.Root != c.tree.Root() {
		return fmt.Errorf("the anchor of %s is of other records than these: they were rewritten", a.Time.UTC().Format(timeLayout))
	}
	return nil
}

// parseTime reads a record's ts. The library's may have another form; those
// that cannot be read are the zero time.
func parseTime(ts []byte) time.Time {
	at, err := time.Parse(time.RFC3339Nano, string(ts))
	if err != nil {
		return time.Time{}
	}
	return at
}

// settle removes what a rotation left that a crash cut short, and checks that
// the file continues the segments beside it.
func (s *sink) settle(f file, t *tail) error {
	if err := s.fs.remove(s.path + nextSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("audit log %s: removing what an unfinished rotation left: %w", s.path, err)
	}
	before, err := segments(s.fs, s.path)
	if err != nil {
		return err
	}
	if n := len(before); n > 0 {
		// A crash between link and rename leaves the log with two names. Nothing
		// was written under the new one yet: the rotation did not happen.
		if is, err := f.stat(); err != nil {
			return explain(s.path, err)
		} else if at, err := s.fs.stat(before[n-1].Name); err == nil && at.same(is) {
			if err := s.fs.remove(before[n-1].Name); err != nil {
				return fmt.Errorf("audit log %s: removing the second name that an unfinished rotation left: %w", s.path, err)
			}
			before = before[:n-1]
		}
	}
	if len(before) == 0 {
		return nil
	}
	newest := before[len(before)-1]
	name := strings.TrimSuffix(filepath.Base(newest.Name), ".gz")
	switch {
	case t.first <= 1:
		return fmt.Errorf("audit log %s begins anew, and there are segments of an earlier log, the last of them %s: put the missing file back, or name another one with --audit-file", s.path, newest.Name)
	case t.segment != name:
		return fmt.Errorf("audit log %s continues %s, and the last segment beside it is %s: files of two logs are mixed; put them apart, or name another file with --audit-file", s.path, clean(t.segment), newest.Name)
	}
	return nil
}

// reopen closes what is left of the file and resumes it. With want, nothing
// may have happened to it meanwhile; without, the disk has the say.
func (s *sink) reopen(now time.Time, want chainState) (*tail, error) {
	st, err := s.fs.stat(s.path)
	switch {
	case err != nil:
		return nil, explain(s.path, err)
	case !st.same(s.id):
		return nil, fmt.Errorf("audit log %s is another file than before", s.path)
	case want.has && st.size != s.size:
		return nil, fmt.Errorf("audit log %s has %d bytes where the engine wrote %d", s.path, st.size, s.size)
	}
	if s.file != nil {
		_ = s.file.close() // it may no longer be the one at path; its lock would be in the way
		s.file = nil
	}
	t, err := s.resume(now)
	if err != nil {
		return nil, err
	}
	if want.has && t.chainState != want {
		err := fmt.Errorf("audit log %s does not end with the last record that was written", s.path)
		_ = s.file.close()
		s.file = nil
		return nil, err
	}
	return t, nil
}
