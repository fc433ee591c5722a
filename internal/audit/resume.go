package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"
)

// tail is where a file's chain ends.
type tail struct {
	chainState
	last time.Time // ts of the last record; zero if there is none
	torn *tornTail // what had to be cut off
}

// resume opens path, reads all of it and gets s ready to append. It is the one
// way to a file: after a clean stop, after a crash, and after an I/O error.
//
// All of the file is checked, not its end alone: a log that is damaged further
// in must not grow, since nobody would look there again. It costs one read of
// the file, at some hundreds of megabytes a second.
//
// A last line without its newline was being written when the engine or the
// machine died. It goes to path.torn-<time>, which is synced before the log is
// cut: a crash in between leaves the line in both places, and the next start
// does the same again. A line that ends and is wrong is damage: no start.
func (s *sink) resume(fsys fileSystem, path string, now time.Time, logger *slog.Logger) (*tail, error) {
	f, err := fsys.open(path)
	if err != nil {
		return nil, explain(path, err)
	}
	t, size, err := examine(fsys, f, path, now, logger)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	st, err := f.stat()
	if err != nil {
		return nil, errors.Join(explain(path, err), f.close())
	}
	s.fs, s.path, s.file, s.id, s.size, s.checked = fsys, path, f, st, size, time.Time{}
	return t, nil
}

// examine reads the whole of f, cuts a torn tail off and returns where the
// chain ends, and the size of the file that holds it.
func examine(fsys fileSystem, f file, path string, now time.Time, logger *slog.Logger) (*tail, int64, error) {
	st, err := f.stat()
	switch {
	case err != nil:
		return nil, 0, explain(path, err)
	case !st.regular:
		return nil, 0, fmt.Errorf("audit log %s: not a regular file; name a file with --audit-file, or use --audit-stdout", path)
	case st.open:
		logger.Warn("the audit log can be read or written by other users; its mode should be 0600", "file", path)
	}
	if st.size == 0 { // perhaps new: its name must survive a crash too
		if err := fsys.syncDir(filepath.Dir(path)); err != nil {
			return nil, 0, fmt.Errorf("audit log %s: syncing its directory: %w", path, err)
		}
	}
	f.evict()
	chain, t := newFollower(), &tail{}
	ts := make([]byte, 0, len(timeLayout))
	good, err := eachLine(path, io.NewSectionReader(f, 0, st.size), func(b []byte) error {
		if err := chain.next(b); err != nil {
			return err
		}
		ts = append(ts[:0], chain.line.ts...)
		return nil
	})
	var damage *Damage
	switch {
	case errors.As(err, &damage) && damage.torn:
		if t.torn, err = cutTail(fsys, f, path, good, st.size, now); err != nil {
			return nil, 0, err
		}
		logger.Warn("the audit log ended in the middle of a record, which was cut off and kept",
			"file", path, "bytes", t.torn.bytes, "kept", t.torn.file)
	case damage != nil:
		return nil, 0, fmt.Errorf("audit log is damaged and is not continued: %w; keep the file as evidence and name a new one with --audit-file", err)
	case err != nil:
		return nil, 0, fmt.Errorf("audit log: %w", err)
	}
	t.chainState = chain.chainState
	if at, err := time.Parse(time.RFC3339Nano, string(ts)); err == nil { // the library's may have another form
		t.last = at
	}
	return t, good, nil
}

// cutTail moves the bytes of f from good to size to a file of their own.
func cutTail(fsys fileSystem, f file, path string, good, size int64, now time.Time) (*tornTail, error) {
	keep, name, err := createTorn(fsys, path, now)
	if err != nil {
		return nil, fmt.Errorf("audit log %s ends in the middle of a record, and there is no keeping it: %w; make room beside the log", path, err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(keep, sum), io.NewSectionReader(f, good, size-good))
	if err == nil {
		err = keep.sync()
	}
	if err = errors.Join(err, keep.close()); err == nil {
		err = fsys.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("keeping the torn end of audit log %s in %s: %w; make room beside the log", path, name, err)
	}
	// At this point the tail is durable under its new name; if we were to crash
	// now, the next start would find it in the log as well and move it again.
	if err := errors.Join(f.truncate(good), f.sync()); err != nil {
		return nil, fmt.Errorf("cutting the torn end off audit log %s: %w", path, err)
	}
	return &tornTail{bytes: size - good, file: filepath.Base(name), sha256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// createTorn makes a file named for now, or that with a number behind it.
func createTorn(fsys fileSystem, path string, now time.Time) (file, string, error) {
	name := path + ".torn-" + now.UTC().Format("20060102T150405.000Z")
	f, err := fsys.create(name)
	for n := 2; errors.Is(err, fs.ErrExist) && n < 100; n++ {
		next := fmt.Sprintf("%s-%d", name, n)
		if f, err = fsys.create(next); err == nil {
			return f, next, nil
		}
	}
	return f, name, err
}

// reopen closes what is left of the file and resumes it. With want, nothing
// may have happened to it meanwhile; without, the disk has the say.
func (s *sink) reopen(fsys fileSystem, path string, now time.Time, logger *slog.Logger, want chainState) (*tail, error) {
	id, size := s.id, s.size
	st, err := fsys.stat(path)
	switch {
	case err != nil:
		return nil, explain(path, err)
	case !st.same(id):
		return nil, fmt.Errorf("audit log %s is another file than before", path)
	case want.has && st.size != size:
		return nil, fmt.Errorf("audit log %s has %d bytes where the engine wrote %d", path, st.size, size)
	}
	if s.file != nil {
		_ = s.file.close() // it may no longer be the one at path; its lock would be in the way
		s.file = nil
	}
	t, err := s.resume(fsys, path, now, logger)
	if err != nil {
		return nil, err
	}
	if want.has && t.chainState != want {
		err := fmt.Errorf("audit log %s does not end with the last record that was written", path)
		_ = s.file.close()
		s.file = nil
		return nil, err
	}
	return t, nil
}
