package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// The rules of this file are: a rotation that cannot be had never stops the
// log, which goes on in the file that it has; and at no moment is there no
// file at the log's path, or one that is not locked.

// Rotation says when a file is full, and what is kept.
type Rotation struct {
	Size int64         // bytes; 0: a file of any size
	Age  time.Duration // of a file's first record; 0: of any age
	// Keep is how many rotated files to keep; 0: all of them. One beyond it is
	// removed only when all its records are below what Removable returns.
	Keep int
	// Removable returns the seq up to which every record is anchored and
	// shipped. Required with Keep: nothing is removed on a guess.
	Removable func() uint64
}

func (r *Rotation) check() error {
	switch {
	case r.Size < 0 || r.Age < 0 || r.Keep < 0:
		return errors.New("audit log: a rotation with a negative size, age or count")
	case r.Keep > 0 && r.Removable == nil:
		return errors.New("audit log: segments are removed only when they are anchored and shipped; give an anchor and a sink, or keep all")
	}
	return nil
}

// retryRotation is how long the log goes on in a full file when it could not
// begin another one.
const retryRotation = time.Minute

// due reports whether the file is to be rotated before the next batch.
func (s *sink) due(r *Rotation, now time.Time) bool {
	if s.file == nil || s.size == 0 {
		return false
	}
	return r.Size > 0 && s.size >= r.Size ||
		r.Age > 0 && !s.began.IsZero() && now.Sub(s.began) >= r.Age
}

// rotate makes buf, whose first record is first, the content of a new file at
// the log's path, and gives the one that was there its segment's name. An
// outcome with kept means that nothing has changed and buf is still to be
// written.
//
// A crash before the rename leaves the old file at its path, perhaps with a
// second name, and a file that nobody was told of: settle removes both. A crash
// after it leaves a rotated log. The entries of the directory are synced in that
// order.
func (s *sink) rotate(buf []byte, first uint64, at time.Time) outcome {
	if o := s.inspect(at, 0); o.err != nil {
		return o
	}
	if err := s.file.sync(); err != nil {
		return s.broken(fmt.Errorf("syncing %s: %w", s.path, err))
	}
	next := s.path + nextSuffix
	f, err := s.begin(next, buf)
	if err != nil {
		return outcome{kept: err}
	}
	dir, segment := filepath.Dir(s.path), segmentName(s.path, s.first)
	st, err := f.stat()
	if err == nil {
		err = s.fs.link(s.path, segment)
	}
	if err != nil {
		err = fmt.Errorf("naming the full file %s: %w", filepath.Base(segment), err)
		return outcome{kept: errors.Join(err, f.close(), s.fs.remove(next))}
	}
	if err = s.fs.syncDir(dir); err == nil {
		err = s.fs.rename(next, s.path)
	}
	if err != nil {
		return outcome{kept: errors.Join(err, f.close(), s.fs.remove(segment), s.fs.remove(next))}
	}
	_ = s.file.close() // all of it is on the disk
	s.file, s.id, s.size, s.checked = f, st, int64(len(buf)), time.Time{}
	s.first, s.began = first, at
	if err := s.fs.syncDir(dir); err != nil {
		return s.broken(fmt.Errorf("syncing the directory of %s: %w", s.path, err))
	}
	if s.copy != nil {
		s.copy.add(buf)
	}
	return outcome{}
}

// begin makes the file next with the content buf, on the disk.
func (s *sink) begin(next string, buf []byte) (file, error) {
	if err := s.fs.remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := s.fs.create(next)
	if err != nil {
		return nil, err
	}
	n, err := f.Write(buf)
	if err == nil && n < len(buf) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", next, err), f.close(), s.fs.remove(next))
	}
	return f, nil
}

// spent returns the oldest segments beyond Keep of which every record is below
// what Removable returns, and the seq of the last of those records.
func spent(fsys fileSystem, path string, r *Rotation) (old []Segment, last uint64, err error) {
	all, err := segments(fsys, path)
	if err != nil {
		return nil, 0, err
	}
	upTo := r.Removable()
	for i := 0; i+1 < len(all) && len(all)-i > r.Keep; i++ {
		end := all[i+1].First - 1
		if end > upTo {
			break
		}
		old, last = append(old, all[i]), end
	}
	return old, last, nil
}

// removeAll removes segments, the oldest first, so that what is left is a log.
func removeAll(fsys fileSystem, path string, old []Segment) error {
	for _, s := range old {
		if err := fsys.remove(s.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fsys.syncDir(filepath.Dir(path))
}
