package checkpoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// EachAnchored calls fn with every note of an anchor file in order, which is
// valid during the call only. It holds one note in memory. An end that is no
// whole note is left out. An error of fn ends the reading and is returned as it
// is; other errors name the line.
func EachAnchored(r io.Reader, fn func(msg []byte) error) error {
	br := bufio.NewReaderSize(r, MaxNote+1)
	var msg []byte
	inSignatures := false // msg has its one empty line, which stands behind the text
	for n := 1; ; n++ {
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			if inSignatures && !bytes.HasSuffix(msg, []byte("\n\n")) {
				return fn(msg)
			}
			return nil // nothing, or what is still being written
		case errors.Is(err, bufio.ErrBufferFull) || len(msg)+len(line) > MaxNote:
			return fmt.Errorf("reading an anchor: line %d: a note longer than %d bytes: notes are parted by one empty line", n, MaxNote)
		case err != nil:
			return fmt.Errorf("reading an anchor: %w", err)
		case bytes.HasSuffix(line, []byte("\r\n")):
			return fmt.Errorf("reading an anchor: line %d: it ends with a carriage return, which no note has: copy the file anew, as it is", n)
		case len(line) > 1:
			msg = append(msg, line...)
			continue
		case len(msg) == 0 || bytes.HasSuffix(msg, []byte("\n\n")):
			return fmt.Errorf("reading an anchor: line %d: an empty line where a note was to go on", n)
		}
		if !inSignatures {
			msg, inSignatures = append(msg, '\n'), true
			continue
		}
		if err := fn(msg); err != nil {
			return err
		}
		msg, inSignatures = msg[:0], false
	}
}

// lastTail is how much of an anchor file's end LastAnchored reads: four of the
// longest notes.
const lastTail = 4 * MaxNote

// LastAnchored returns the last whole note of an anchor file of that size, or
// nil if it has none. It reads the end alone.
func LastAnchored(r io.ReaderAt, size int64) ([]byte, error) {
	tail := make([]byte, min(size, lastTail))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading an anchor: %w", err)
	}
	if int64(len(tail)) < size { // it begins in the middle of a note
		tail = tail[behindNote(tail):]
	}
	var last []byte
	err := EachAnchored(bytes.NewReader(tail), func(msg []byte) error {
		last = bytes.Clone(msg)
		return nil
	})
	return last, err
}

// behindNote returns where in tail the first note ends: behind the empty line
// that follows a signature.
func behindNote(tail []byte) int {
	for end := 0; ; {
		i := bytes.Index(tail[end:], []byte("\n\n"))
		if i < 0 {
			return len(tail)
		}
		line := tail[bytes.LastIndexByte(tail[:end+i], '\n')+1 : end+i]
		if end += i + 2; bytes.HasPrefix(line, []byte("— ")) {
			return end
		}
	}
}
