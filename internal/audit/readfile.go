package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

// OpenFile opens a file of a log for reading from its start. A file that was
// compressed with gzip is known by its first bytes, not by its name, and is
// read as what it was before: a record begins with "{", so nothing else can be
// taken for one. The caller closes it.
//
// Reading needs a few KiB of memory however far the file inflates. A compressed
// file that is cut off or changed ends in an error of reading.
func OpenFile(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening an audit log: %w", err)
	}
	br := bufio.NewReader(f)
	if magic, _ := br.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // RFC 1952 section 2.3.1
		return &logFileReader{Reader: br, file: f}, nil // an error of Peek comes again with the first Read
	}
	z, err := gzip.NewReader(br)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening an audit log: %s begins like a gzip file and is none: %w", name, err)
	}
	return &logFileReader{Reader: z, file: f}, nil
}

// logFileReader reads through a decoder and closes the file under it.
type logFileReader struct {
	io.Reader
	file *os.File
}

func (r *logFileReader) Close() error { return r.file.Close() }
