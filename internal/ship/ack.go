package ship

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// maxPosition is the longest position in a file: 20 digits and a newline.
const maxPosition = 21

// readPosition returns what the file name holds, and whether it is there.
func readPosition(name string) (seq uint64, there bool, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("reading a sink's position: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPosition+1))
	if err != nil {
		return 0, false, fmt.Errorf("reading a sink's position: %w", err)
	}
	if n := len(b); n > 1 && b[n-1] == '\n' {
		seq, err = strconv.ParseUint(string(b[:n-1]), 10, 64)
		if err == nil && strconv.FormatUint(seq, 10)+"\n" == string(b) {
			return seq, true, nil
		}
	}
	return 0, false, fmt.Errorf("%s holds %q where a sink's position must stand: write into it the seq of the last record that the receiver has, and a newline; or remove it to send everything again", name, b)
}

// checkPosition compares a sink's position with the log that it is to be read
// from, and returns where the sink goes on: behind that position.
func checkPosition(log, name string) (acked uint64, err error) {
	acked, there, err := readPosition(name)
	if err != nil {
		return 0, err
	}
	first, last, err := audit.Span(log)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, err
	}
	switch {
	case !there && first > 0:
		return first - 1, nil
	case acked > last:
		return 0, fmt.Errorf("%s: the receiver has records up to %d and %s ends with record %d: the log was cut or replaced, or the machine failed before it was on the disk; keep both files as evidence, then remove the position to send the log that is there from its beginning", name, acked, log, last)
	case first > acked+1:
		return 0, fmt.Errorf("%s: the receiver has records up to %d and %s begins with record %d: what is between was removed before it was sent; bring it back, or write %d into the position to go on without it", name, acked, log, first, first-1)
	}
	return acked, nil
}

// writePosition replaces what name holds. What the log has up to there is on
// the disk before: otherwise a power cut could leave a position that the log
// does not have.
func writePosition(log, name string, seq uint64) error {
	if err := syncFile(log); err != nil {
		return err
	}
	next := name + ".tmp"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d\n", seq)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// If we were to crash now, the old position stands and some records are
	// sent again.
	return os.Rename(next, name)
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// positionFile is where the sink that ships log to t keeps its position.
func positionFile(log string, t *Target) string {
	return filepath.Clean(log) + "." + t.id() + ".ack"
}
