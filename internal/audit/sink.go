package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// inspectEvery is how long the name of the file may go unchecked while records
// are written: a file that was renamed or deleted takes records for that long
// at most. Foreign writes are looked for at every commit.
const inspectEvery = time.Second

// sink is where batches go. It has no lock: Log.writing says who owns it.
type sink struct {
	fs       fileSystem
	path     string
	logger   *slog.Logger
	keys     checkpoint.Verifiers   // whose checkpoints count when the file is read
	anchored *checkpoint.Checkpoint // what the file must continue; nil: nothing is known
	locked   func() error           // called when the file is locked, before it is read

	file    file // nil: no file, or broken and closed
	id      fileState
	size    int64 // behind the last committed record
	checked time.Time
	first   uint64    // seq of the file's first record; 0 if it has none yet
	began   time.Time // ts of that record

	out  io.Writer // the truth where there is no file
	rest []byte    // of a batch of which out took a part

	copy *copier // beside a file
}

// outcome of writing a batch; err is nil if it is committed.
type outcome struct {
	err    error
	kind   faultKind
	partly bool  // out took a part of it: the rest is written first next time
	kept   error // a rotation did not happen, and nothing was written
}

// store commits buf: all of it, or nothing that a reader of the file sees.
func (s *sink) store(buf []byte, d Durability, now time.Time) outcome {
	if s.out != nil {
		return s.storeOut(buf)
	}
	if o := s.inspect(now, inspectEvery); o.err != nil {
		return o
	}
	n, err := s.file.Write(buf)
	if err == nil && n < len(buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return s.cutBack(n, err)
	}
	if d == Strict {
		if err := s.file.sync(); err != nil {
			return s.broken(fmt.Errorf("syncing %s: %w", s.path, err))
		}
	}
	s.size += int64(n)
	if s.copy != nil {
		s.copy.add(buf)
	}
	return outcome{}
}

// cutBack takes n bytes of a failed write back, so that the file ends with the
// last committed record. If we crash before it, the next start cuts the last
// line and keeps records before it whose callers were told of a failure: they
// read as decisions without a completion.
func (s *sink) cutBack(n int, err error) outcome {
	err = fmt.Errorf("writing %s: %w", s.path, err)
	if !noRoom(err) {
		return s.broken(err)
	}
	if n > 0 {
		if cut := s.file.truncate(s.size); cut != nil {
			return s.broken(errors.Join(err, cut))
		}
	}
	return outcome{err: err, kind: full}
}

// broken closes the file: what it holds is not known until it is read again.
func (s *sink) broken(err error) outcome {
	_ = s.file.close() // the error that counts is err
	s.file = nil
	return outcome{err: err, kind: broken}
}

// inspect looks whether the file is still the one at its path, if that was not
// looked at for the time every, and whether anybody else changed it.
func (s *sink) inspect(now time.Time, every time.Duration) outcome {
	if s.file == nil {
		return outcome{}
	}
	lost := func(format string, args ...any) outcome {
		return outcome{err: fmt.Errorf("%s %s", s.path, fmt.Sprintf(format, args...)), kind: gone}
	}
	size, err := s.file.end()
	switch {
	case err != nil:
		return s.broken(fmt.Errorf("looking at %s: %w", s.path, err))
	case size != s.size:
		return lost("has %d bytes where the engine wrote %d: something else writes to it or cut it", size, s.size)
	}
	if since := now.Sub(s.checked); since >= 0 && since < every {
		return outcome{}
	}
	st, err := s.file.stat()
	switch {
	case err != nil:
		return s.broken(fmt.Errorf("looking at %s: %w", s.path, err))
	case st.nlink == 0:
		return lost("was deleted; restart the engine to begin a new log")
	}
	st, err = s.fs.stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return lost("was moved away; put it back, or restart the engine to begin a new log")
	case err != nil:
		return s.broken(fmt.Errorf("looking at %s: %w", s.path, err))
	case !st.same(s.id):
		return lost("was replaced by another file; put it back, or restart the engine to begin a new log")
	}
	s.checked = now
	return outcome{}
}

// storeOut writes to a stream, which cannot take bytes back: once a part of a
// batch is out, the rest of it comes before anything else.
func (s *sink) storeOut(buf []byte) outcome {
	wrap := func(err error) error { return fmt.Errorf("writing standard output: %w", err) }
	if len(s.rest) > 0 {
		n, err := writeAll(s.out, s.rest)
		s.rest = s.rest[n:]
		if err != nil {
			return outcome{err: wrap(err), kind: full}
		}
	}
	n, err := writeAll(s.out, buf)
	if err == nil {
		return outcome{}
	}
	if n > 0 {
		s.rest = append(s.rest[:0], buf[n:]...)
	}
	return outcome{err: wrap(err), kind: full, partly: n > 0}
}

func writeAll(w io.Writer, b []byte) (int, error) {
	n, err := w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// sync makes what was committed durable, whatever the Durability.
func (s *sink) sync() error {
	if s.file == nil {
		return nil
	}
	if err := s.file.sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", s.path, err)
	}
	return nil
}

func (s *sink) close() error {
	s.copy.close()
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	if err := f.close(); err != nil {
		return fmt.Errorf("closing %s: %w", s.path, err)
	}
	return nil
}

func (s *sink) syncAndClose() error { return errors.Join(s.sync(), s.close()) }

// Limits of the copy on standard output.
const (
	maxCopy   = 1 << 20         // bytes that wait for a slow reader
	closeCopy = 2 * time.Second // how long Close waits for it
)

// copier passes lines on to a stream that nobody waits for.
type copier struct {
	w    io.Writer
	wait time.Duration // how long close waits for w
	done chan struct{}

	mu      sync.Mutex
	more    sync.Cond
	buf     []byte // whole lines
	closed  bool
	dropped int64 // batches that found no room, or a stream that failed
}

func newCopier(w io.Writer) *copier {
	c := &copier{w: w, wait: closeCopy, done: make(chan struct{})}
	c.more.L = &c.mu
	go c.run()
	return c
}

// add takes a batch, or drops it whole.
func (c *copier) add(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.buf) > 0 && len(c.buf)+len(b) > maxCopy {
		c.dropped++
		return
	}
	c.buf = append(c.buf, b...)
	c.more.Signal()
}

func (c *copier) run() {
	defer close(c.done)
	var buf []byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.buf) == 0 {
			if c.closed {
				return
			}
			c.more.Wait()
		}
		buf, c.buf = c.buf, buf[:0]
		c.mu.Unlock()
		_, err := writeAll(c.w, buf)
		c.mu.Lock()
		if err != nil {
			c.dropped++
		}
	}
}

func (c *copier) drops() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// close gives what is pending a moment to get out. A stream that blocks keeps
// its goroutine until the process ends. A nil copier is none.
func (c *copier) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.closed = true
	c.more.Signal()
	c.mu.Unlock()
	t := time.NewTimer(c.wait)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
}
