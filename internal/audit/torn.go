package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The rules of this file are: what is cut off a log is kept beside it first;
// the name says behind which record that was; and a start, or a recovery,
// records each file of which the records behind that one say nothing: whoever
// cut it died before its record was on the disk.

// tornSuffix stands between a log's name and what says which of its ends this
// is: the seq of the record before it, and the time.
const tornSuffix = ".torn-"

// tornName returns the name of what stands behind the record seq.
func tornName(path string, seq uint64, now time.Time) string {
	return fmt.Sprintf("%s%s%0*d-%s", path, tornSuffix, segmentDigits, seq, now.UTC().Format("20060102T150405.000Z"))
}

// parseTorn reports behind which record of the log base a file of this name
// stood.
func parseTorn(base, name string) (seq uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, base+tornSuffix)
	digits, _, dash := strings.Cut(rest, "-")
	if !ok || !dash || len(digits) < segmentDigits {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil
}

// cutTail moves the bytes of f from good to size to a file of their own. A crash
// before the cut leaves them in both places, and the next start does the same
// again.
func (s *sink) cutTail(f file, good, size int64, name string) (*tornTail, error) {
	path := s.path
	keep, name, err := createTorn(s.fs, name)
	if err != nil {
		return nil, fmt.Errorf("audit log %s ends in the middle of a record, and there is no keeping it: %w; make room beside the log", path, err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(keep, sum), io.NewSectionReader(f, good, size-good))
	if err == nil {
		err = keep.sync()
	}
	if err = errors.Join(err, keep.close()); err == nil {
		err = s.fs.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("keeping the torn end of audit log %s in %s: %w; make room beside the log", path, name, err)
	}
	// At this point the tail is durable under its new name.
	if err := errors.Join(f.truncate(good), f.sync()); err != nil {
		return nil, fmt.Errorf("cutting the torn end off audit log %s: %w", path, err)
	}
	return &tornTail{bytes: size - good, file: filepath.Base(name), sha256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// createTorn makes a file of that name, or that with a number behind it.
func createTorn(fsys fileSystem, name string) (file, string, error) {
	f, err := fsys.create(name)
	for n := 2; errors.Is(err, fs.ErrExist) && n < 100; n++ {
		next := fmt.Sprintf("%s-%d", name, n)
		if f, err = fsys.create(next); err == nil {
			return f, next, nil
		}
	}
	return f, name, err
}

// noteTorn adds the file that l, a record of the engine, says was cut off.
func noteTorn(l *line, recorded map[string]bool) {
	if !bytes.HasPrefix(l.event, []byte("engine_")) || !bytes.Contains(l.payload, []byte(`"torn":{`)) {
		return
	}
	eachMember(l.payload, func(key string, v []byte) {
		if key != "torn" || v[0] != '{' {
			return
		}
		eachMember(v, func(key string, v []byte) {
			if key == "file" {
				recorded[stringOf(v)] = true
			}
		})
	})
}

// unrecorded returns what was cut off behind the record from or a later one and
// is not among what was recorded, the newest first.
func (s *sink) unrecorded(from uint64, recorded map[string]bool) ([]*tornTail, error) {
	dir, base := filepath.Split(s.path)
	names, err := s.fs.list(filepath.Clean(dir))
	if err != nil {
		return nil, fmt.Errorf("looking for what was cut off audit log %s: %w", s.path, err)
	}
	slices.Sort(names)
	var torn []*tornTail
	for _, name := range slices.Backward(names) {
		if seq, ok := parseTorn(base, name); !ok || seq < from || recorded[name] {
			continue
		}
		t, err := s.describe(dir + name)
		if err != nil {
			return nil, fmt.Errorf("reading what was cut off audit log %s: %w", s.path, err)
		}
		torn = append(torn, t)
	}
	return torn, nil
}

// describe reads a file that was cut off, and syncs it.
func (s *sink) describe(name string) (*tornTail, error) {
	f, err := s.fs.open(name)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.NewSectionReader(f, 0, 1<<62))
	if err == nil {
		err = f.sync() // who left it may have died before that
	}
	if err = errors.Join(err, f.close()); err != nil {
		return nil, err
	}
	return &tornTail{bytes: n, file: filepath.Base(name), sha256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// record returns what says so in the log, where engine_start does not.
func (t *tornTail) record() (*Record, *engineFacts) {
	return &Record{
		Event: EngineHeartbeat, Reason: reasonRecovered,
		Detail: fmt.Sprintf("%d bytes that were no whole record were cut off the end of the file and are in %s", t.bytes, t.file),
	}, &engineFacts{torn: t}
}
