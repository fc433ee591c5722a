package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// message is what the harness reads of a head: enough to find its end and the
// next one. It trusts both sides.
type message struct {
	line   []byte // request or status line, a copy
	length int64  // of the body; -1: chunked
	closes bool
}

// read reads a head. The buffer of r bounds a line.
func (m *message) read(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	m.line = append(m.line[:0], bytes.TrimRight(line, "\r\n")...)
	m.length, m.closes = 0, false
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			m.length, err = strconv.ParseInt(string(value), 10, 64)
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			m.length = -1
		case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
			m.closes = bytes.EqualFold(value, []byte("close"))
		}
		if err != nil {
			return fmt.Errorf("reading %q: %w", line, err)
		}
	}
}

// status returns the code of a status line, or 0.
func (m *message) status() int {
	if len(m.line) < 12 {
		return 0
	}
	code, _ := strconv.Atoi(string(m.line[9:12]))
	return code
}

// discardBody reads the body away and returns its size. progress is told of
// each piece as it comes.
func (m *message) discardBody(r *bufio.Reader, progress func(n int)) (int64, error) {
	if m.length >= 0 {
		return m.length, discard(r, m.length, progress)
	}
	var total int64
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return total, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 63)
		if err != nil {
			return total, fmt.Errorf("a chunk's size: %w", err)
		}
		if n == 0 {
			break
		}
		if err := discard(r, n, progress); err != nil {
			return total, err
		}
		total += n
		if _, err := r.Discard(len("\r\n")); err != nil {
			return total, err
		}
	}
	for { // trailers
		line, err := r.ReadSlice('\n')
		if err != nil || len(bytes.TrimRight(line, "\r\n")) == 0 {
			return total, err
		}
	}
}

// discard drops n bytes without copying them.
func discard(r *bufio.Reader, n int64, progress func(n int)) error {
	for n > 0 {
		if _, err := r.Peek(1); err != nil {
			return errors.Join(fmt.Errorf("%d bytes of a body are missing", n), err)
		}
		part, err := r.Discard(int(min(n, int64(r.Buffered()))))
		if err != nil {
			return err
		}
		progress(part)
		n -= int64(part)
	}
	return nil
}

func ignore(int) {}
