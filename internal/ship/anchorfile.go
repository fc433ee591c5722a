package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// The rules of this file are: a file that ends with something else than notes
// is somebody else's and is not touched; the end of a note that was being
// written when we died is cut off, as readers expect one note behind another.

// anchorTail is how much of a file's end is looked at: four of the longest
// notes.
const anchorTail = 16 << 10

// fileAnchor appends notes to a file. It opens it each time, so that a volume
// that comes back, or a file that was moved away, needs no restart.
type fileAnchor struct {
	name   string
	logger *slog.Logger
}

// check tells at start what would fail later.
func (a *fileAnchor) check() error {
	f, _, err := a.open()
	if err != nil {
		return err
	}
	return f.Close()
}

func (a *fileAnchor) deliver(_ context.Context, c pending) error {
	f, size, err := a.open()
	if err != nil {
		return err
	}
	b := append(bytes.Clone(c.note), '\n')
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	} else if cut := f.Truncate(size); cut != nil {
		err = errors.Join(err, cut)
	}
	return errors.Join(err, f.Close())
}

// open opens the file, makes it if it is not there, and mends its end. It
// returns its size.
func (a *fileAnchor) open() (*os.File, int64, error) {
	f, err := os.OpenFile(a.name, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, 0, a.explain(err)
	}
	size, err := a.mend(f)
	if err == nil && size == 0 { // perhaps new: its name must survive a crash too
		err = syncDir(filepath.Dir(a.name))
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// mend makes f end with a whole note and an empty line, and returns its size.
func (a *fileAnchor) mend(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, a.explain(syscall.ENXIO)
	}
	size := st.Size()
	tail := make([]byte, min(size, anchorTail))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return 0, fmt.Errorf("reading anchor file %s: %w", a.name, err)
	}
	whole := wholeNotes(tail)
	switch {
	case whole == len(tail):
		return size, nil
	case signed(tail): // all of the note is there, but for the empty line
		_, err := f.Write([]byte{'\n'})
		return size + 1, err
	case whole == 0:
		return 0, fmt.Errorf("%s does not end with a checkpoint, so it is not appended to; move it away, or name another file", a.name)
	}
	size -= int64(len(tail) - whole)
	if err := f.Truncate(size); err != nil {
		return 0, fmt.Errorf("cutting half a note off the end of anchor file %s: %w", a.name, err)
	}
	a.logger.Warn("the anchor file ended in the middle of a note, which was cut off", "file", a.name, "bytes", len(tail)-whole)
	return size, nil
}

// wholeNotes returns how much of the end of an anchor file is behind whole
// notes: up to the last empty line that follows a signature line.
func wholeNotes(tail []byte) int {
	for end := len(tail); ; {
		i := bytes.LastIndex(tail[:end], []byte("\n\n"))
		if i < 0 {
			return 0
		}
		if signed(tail[:i+1]) {
			return i + 2
		}
		end = i + 1
	}
}

// signed reports whether b ends with a signature line and its newline.
func signed(b []byte) bool {
	b, ok := bytes.CutSuffix(b, []byte{'\n'})
	return ok && bytes.HasPrefix(b[bytes.LastIndexByte(b, '\n')+1:], []byte("— "))
}

// explain turns an error of opening the file into one line with what to do.
func (a *fileAnchor) explain(err error) error {
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("anchor %s: not a regular file; name the file itself (%w)", a.name, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("anchor %s: there is no directory %s; create it, or name another file (%w)", a.name, filepath.Dir(a.name), err)
	default:
		return fmt.Errorf("anchor %s: %w", a.name, err)
	}
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
