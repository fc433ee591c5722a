package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// sourceBuffer is how much of a file is read at once, in bytes.
const sourceBuffer = 64 << 10

// OpenFile opens a file of a log for reading from its start. A file that was
// compressed with gzip is known by its first bytes, not by its name, and is
// read as what it was before: a record begins with "{", so nothing else can be
// taken for one. The caller closes it.
//
// Reading needs little memory however far the file inflates. A compressed
// file that is cut off or changed ends in an error of reading.
func OpenFile(name string) (io.ReadCloser, error) {
	s, err := openSource(name, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("opening an audit log: %w", err)
	}
	return s, nil
}

// source is a file of a log that is being read.
type source struct {
	*bufio.Reader          // of what gzip compressed, if it did
	file          *os.File // nil: somebody else's reader
}

// openSource opens name; "-" stands for stdin, unless that is nil. progress, if
// it is not nil, is told how many bytes of the file itself were read, each time
// there are more.
func openSource(name string, stdin io.Reader, progress func(n int64)) (*source, error) {
	s, r := &source{}, stdin
	if name != "-" || stdin == nil {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		s.file, r = f, f
	}
	if progress != nil {
		r = &metered{r: r, fn: progress}
	}
	s.Reader = bufio.NewReaderSize(r, sourceBuffer)
	// An error of Peek comes again with the first Read.
	if magic, _ := s.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) { // RFC 1952 section 2.3.1
		z, err := gzip.NewReader(s.Reader)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s begins like a gzip file and is none: %w", name, err), s.Close())
		}
		s.Reader = bufio.NewReaderSize(z, sourceBuffer)
	}
	return s, nil
}

// Close closes the file. What was given to be read is left open.
func (s *source) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// metered counts what is read through it.
type metered struct {
	r  io.Reader
	n  int64
	fn func(n int64)
}

func (m *metered) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if n > 0 {
		m.n += int64(n)
		m.fn(m.n)
	}
	return n, err
}
