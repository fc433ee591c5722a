package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// record is what is read of a record. The reader shares no code with the engine.
type record struct {
	Event   string `json:"event"`
	Payload struct {
		Seq      uint64 `json:"seq"`
		ID       string `json:"id"`
		Attempt  int    `json:"attempt"`
		Phase    string `json:"phase"`
		Method   string `json:"method"`
		Host     string `json:"host"`
		Path     string `json:"path"`
		Reason   string `json:"reason"`
		Revision string `json:"policy_revision"`
		Status   int    `json:"status_code"`
		SentSum  string `json:"request_sha256"`
		SentN    int64  `json:"request_bytes"`
		GotSum   string `json:"response_sha256"`
		GotN     int64  `json:"response_bytes"`
		Count    int    `json:"count"`
	} `json:"payload"`
}

// told is what the log says of one path, or of a host where there is no path.
type told struct {
	decisions, ends, denials []record
}

// index is the log as it is read while it grows and rotates. It is safe for
// concurrent use.
type index struct {
	file string

	mu      sync.Mutex
	current *os.File
	r       *bufio.Reader
	partial []byte
	read    map[string]bool  // :: segments that were read to their end, by name
	by      map[string]*told // :: path, or "host "+host → what is said
	hellos  map[string]int   // :: reason → refusals that name no path
	counted map[string]int   // :: reason → refusals beyond those that are recorded one by one
	records int
	seq     uint64
	broken  []string
}

func newIndex(file string) *index {
	return &index{file: file, read: map[string]bool{}, by: map[string]*told{}, hellos: map[string]int{}, counted: map[string]int{}}
}

// decided is how many attempts to forward the log has let pass.
func (x *index) decided(method, path string) (n int, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.catchUp(); err != nil {
		return 0, err
	}
	if t := x.by[path]; t != nil {
		for _, d := range t.decisions {
			if d.Payload.Method == method {
				n++
			}
		}
	}
	return n, nil
}

// catchUp reads what was written since.
func (x *index) catchUp() error {
	for {
		if x.current == nil {
			f, err := os.Open(x.file)
			if err != nil {
				return err
			}
			x.current, x.r = f, bufio.NewReaderSize(f, 64<<10)
		}
		if err := x.lines(); err != nil {
			return err
		}
		next, err := x.next()
		if err != nil || next == "" {
			return err
		}
		if err := x.lines(); err != nil { // what came before it was put aside
			return err
		}
		f, err := os.Open(next)
		if err != nil {
			return err
		}
		_ = x.current.Close()
		x.current, x.r = f, bufio.NewReaderSize(f, 64<<10)
	}
}

// next is the file that goes on where the current one ends, "" while it is the
// log's own.
func (x *index) next() (string, error) {
	mine, err := x.current.Stat()
	if err != nil {
		return "", err
	}
	if now, err := os.Stat(x.file); err != nil || os.SameFile(mine, now) {
		return "", err
	}
	segments, err := segmentsOf(x.file)
	if err != nil {
		return "", err
	}
	for i, s := range segments {
		info, err := os.Stat(s)
		if err != nil {
			return "", err
		}
		if os.SameFile(mine, info) {
			return append(segments, x.file)[i+1], nil
		}
	}
	return "", errors.New("the file that was being read is none of the log's any more")
}

// segmentsOf are the rotated files of a log, in their order.
func segmentsOf(file string) ([]string, error) {
	all, err := filepath.Glob(file + ".[0-9]*")
	slices.Sort(all)
	return all, err
}

func (x *index) lines() error {
	for {
		line, err := x.r.ReadBytes('\n')
		x.partial = append(x.partial, line...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.take(x.partial); err != nil {
			return err
		}
		x.partial = x.partial[:0]
	}
}

func (x *index) take(line []byte) error {
	var r record
	if err := json.Unmarshal(bytes.TrimSpace(line), &r); err != nil {
		return fmt.Errorf("a line of the log: %w: %.200s", err, line)
	}
	x.records++
	if r.Payload.Seq != x.seq+1 {
		x.broken = append(x.broken, fmt.Sprintf("record %d follows %d", r.Payload.Seq, x.seq))
	}
	x.seq = r.Payload.Seq
	by := r.Payload.Path
	switch {
	case r.Payload.Host == "" && by == "":
		x.counted[r.Payload.Reason] += r.Payload.Count // 0 of the log's own
		return nil
	case by == "":
		by = "host " + r.Payload.Host
		x.hellos[r.Payload.Reason]++
	}
	t := x.by[by]
	if t == nil {
		t = new(told)
		x.by[by] = t
	}
	switch {
	case r.Payload.Phase == "complete":
		t.ends = append(t.ends, r)
	case r.Event == "egress_allowed":
		t.decisions = append(t.decisions, r)
	default:
		t.denials = append(t.denials, r)
	}
	return nil
}
