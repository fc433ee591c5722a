package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
)

// view is the files of a log at one time.
type view struct {
	active   *fileReader // its first is 0 if it has no record yet
	segments []Segment
}

// look opens the active file and then lists the segments. A rotation links the
// old file to its new name before it gives its place away, so a segment that
// is older than the file we hold is in the list, if it was not removed.
func look(path string) (v view, err error) {
	if v.active, err = openReader(path); err != nil {
		return view{}, err
	}
	if err = v.active.begins(); err == nil {
		v.segments, err = Segments(path)
	}
	if err != nil {
		v.active.close()
		return view{}, err
	}
	return v, nil
}

// fileReader is one file of a log that is read line by line.
type fileReader struct {
	name  string
	f     *os.File
	id    os.FileInfo
	zip   *gzip.Reader // nil: the file is plain
	lines lineReader
	first uint64 // position of the first record; 0: not known, or there is none
	pos   uint64 // position of the last record read
	off   int64  // behind that, in a plain file
}

// openSegment opens a segment, whose name says where it begins.
func openSegment(s Segment) (*fileReader, error) {
	f, err := openReader(s.Name)
	if err != nil {
		return nil, err
	}
	f.first, f.pos = s.First, s.First-1
	return f, nil
}

// errNoLine means that there is no whole line at the end of a file as it is.
var errNoLine = errors.New("no whole line yet")

// openReader opens a file to read, from its beginning.
func openReader(name string) (*fileReader, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO without a writer must not hold us
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	l := &fileReader{name: name, f: f}
	if l.id, err = f.Stat(); err == nil && !l.id.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file; name the audit log itself", name)
	}
	var magic [2]byte
	if err == nil {
		_, err = f.ReadAt(magic[:], 0)
		if errors.Is(err, io.EOF) { // of a file with less than two bytes
			err = nil
		}
	}
	if err == nil && magic == [2]byte{0x1f, 0x8b} {
		l.zip, err = gzip.NewReader(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading the audit log %s: %w", name, err)
	}
	l.rewind()
	return l, nil
}

func (f *fileReader) close() { f.f.Close() }

// rewind makes the next line the one behind the last whole line that was read.
// A line that is being written is read anew, as a crash may take it back.
func (f *fileReader) rewind() {
	var r io.Reader = f.zip
	if f.zip == nil {
		r = io.NewSectionReader(f.f, f.off, 1<<62)
	}
	if f.lines.br == nil {
		f.lines.br = bufio.NewReaderSize(r, 64<<10)
	} else if f.zip == nil {
		f.lines.br.Reset(r)
	}
}

// next returns the next line without its newline, valid until the next call.
// At the end, the error is errNoLine; there may be more later.
func (f *fileReader) next() ([]byte, error) {
	b, err := f.lines.next()
	switch {
	case err == nil:
		f.pos++
		f.off += int64(len(b))
		return b[:len(b)-1], nil
	case errors.Is(err, io.EOF) && f.zip != nil && len(b) > 0:
		return nil, f.damage("the file ends in the middle of a record")
	case errors.Is(err, io.EOF):
		f.rewind()
		return nil, errNoLine
	case errors.Is(err, errTooLong):
		return nil, f.damage(fmt.Sprintf("longer than %d bytes", maxLine))
	default:
		return nil, fmt.Errorf("reading %s: %w", f.name, err)
	}
}

// damage is what is wrong with the line behind the last one read.
func (f *fileReader) damage(what string) error {
	return &Damage{File: f.name, Line: f.line() + 1, Offset: f.off, What: what}
}

// line returns the number of the last line read, from 1: a record is a line.
func (f *fileReader) line() int64 { return int64(f.pos + 1 - max(f.first, 1)) } //nolint:gosec // a count of lines

// begins learns from the first record where the file begins. Only segments
// begin with another record than the log's first, and theirs have a seq.
func (f *fileReader) begins() error {
	b, err := f.next()
	if errors.Is(err, errNoLine) {
		return nil
	}
	if err != nil {
		return err
	}
	seq, err := seqOf(b)
	if err != nil {
		f.pos, f.off = 0, 0
		return f.damage(err.Error())
	}
	f.first = max(seq, 1)
	if f.zip != nil { // somebody compressed the active file by hand
		if _, err = f.f.Seek(0, io.SeekStart); err == nil {
			err = f.zip.Reset(f.f)
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.name, err)
		}
		f.lines.br.Reset(f.zip)
	}
	f.pos, f.off = f.first-1, 0
	f.rewind()
	return nil
}

// seqOf returns payload.seq of a record, 0 if it has none.
func seqOf(b []byte) (uint64, error) {
	var l line
	if _, err := new(respeller).parse(&l, b); err != nil || l.seq == nil {
		return 0, err
	}
	seq, err := strconv.ParseUint(string(l.seq), 10, 64)
	if err != nil || seq == 0 {
		return 0, errors.New("payload.seq is not a count")
	}
	return seq, nil
}

// seekNear is how close before the record wanted is close enough to read on
// line by line.
const seekNear = 256 << 10

// seek makes the next record the one at from, or one not far before it, where
// seq lets us find it without reading everything.
func (f *fileReader) seek(from uint64) error {
	if f.zip != nil || f.first == 0 || from <= f.first {
		return nil
	}
	hi, err := f.f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", f.name, err)
	}
	lo, at := int64(0), f.first // the line at lo is record at
	for hi-lo > seekNear {
		mid := lo + (hi-lo)/2
		start, seq, err := f.lineBehind(mid)
		if err != nil {
			return err
		}
		if seq == 0 || seq > from || start >= hi {
			hi = mid
		} else {
			lo, at = start, seq
		}
	}
	f.off, f.pos = lo, at-1
	f.rewind()
	return nil
}

// lineBehind returns where the first line that begins behind offset begins, and
// its seq; 0 if there is none, or it does not say.
func (f *fileReader) lineBehind(offset int64) (start int64, seq uint64, err error) {
	r := lineReader{br: bufio.NewReaderSize(io.NewSectionReader(f.f, offset, 1<<62), 4<<10)}
	b, err := r.next() // the rest of a line
	start = offset + int64(len(b))
	if err == nil {
		b, err = r.next()
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errTooLong):
		return start, 0, nil
	case err != nil:
		return 0, 0, fmt.Errorf("reading %s: %w", f.name, err)
	}
	seq, err = seqOf(b[:len(b)-1])
	if err != nil {
		return start, 0, nil //nolint:nilerr // who reads on from before it will say so
	}
	return start, seq, nil
}

// ends returns the position of the last record in the file; 0 if it has none.
func (f *fileReader) ends() (uint64, error) {
	if f.zip == nil {
		if seq, err := f.lastSeq(); seq > 0 || err != nil {
			return seq, err
		}
	}
	for {
		_, err := f.next()
		if errors.Is(err, errNoLine) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if f.pos < max(f.first, 1) {
		return 0, nil
	}
	return f.pos, nil
}

// lastSeq returns payload.seq of the last whole line of a plain file, 0 if
// there is no line or it does not say.
func (f *fileReader) lastSeq() (uint64, error) {
	size, err := f.f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w", f.name, err)
	}
	for _, window := range []int64{64 << 10, 2*maxLine + 1} {
		b := make([]byte, min(window, size))
		if _, err := f.f.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("reading %s: %w", f.name, err)
		}
		end := bytes.LastIndexByte(b, '\n')
		if end < 0 {
			continue
		}
		start := bytes.LastIndexByte(b[:end], '\n') + 1
		if start == 0 && int64(len(b)) < size {
			continue
		}
		seq, err := seqOf(b[start:end])
		if err != nil {
			return 0, fmt.Errorf("the last record of %s: %w", f.name, err)
		}
		return seq, nil
	}
	return 0, nil
}
