package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen. It is no expectation
// of speed: it is far beyond anything but a hang, and inside the 10 minutes
// that go test allows.
const patience = 30 * time.Second

// Fields names values that a record must have, in its payload or beside it:
// "event", "phase", "host", "reason" … Numbers and strings compare by their
// text; nil and "" stand for a field that is not there; "agent.namespace" is
// a field of an object.
type Fields map[string]any

func (f Fields) String() string {
	var b strings.Builder
	for i, key := range slices.Sorted(maps.Keys(f)) {
		if i > 0 {
			b.WriteString(" ")
		}
		fmt.Fprintf(&b, "%s=%v", key, f[key])
	}
	return b.String()
}

// Has reports whether r has all of f.
func (r Record) Has(f Fields) bool {
	for key, want := range f {
		text := ""
		if want != nil {
			text = fmt.Sprint(want)
		}
		if r.Get(key) != text {
			return false
		}
	}
	return true
}

// tail reads a growing log, whole lines at a time.
type tail struct {
	file string

	mu      sync.Mutex
	offset  int64
	records []Record
}

// read returns every record written so far.
func (l *tail) read() ([]Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.Open(l.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(l.offset, io.SeekStart); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	for line := range strings.Lines(string(data[:end])) {
		r, err := parseRecord(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("line %d of the log: %w: %s", len(l.records)+1, err, line)
		}
		l.records = append(l.records, r)
		l.offset += int64(len(line))
	}
	return slices.Clip(l.records), nil
}

// Records returns what is in the log now.
func (e *Engine) Records(tb testing.TB) []Record {
	tb.Helper()
	records, err := e.log.read()
	if err != nil {
		tb.Fatalf("reading the audit log: %v", err)
	}
	return records
}

// Find returns the records that have f, now.
func (e *Engine) Find(tb testing.TB, f Fields) []Record {
	tb.Helper()
	return slices.DeleteFunc(slices.Clone(e.Records(tb)), func(r Record) bool { return !r.Has(f) })
}

// WantRecord waits for a record that has f and returns the first.
func (e *Engine) WantRecord(tb testing.TB, f Fields) Record {
	tb.Helper()
	return e.WantRecords(tb, 1, f)[0]
}

// WantRecords waits until at least n records have f and returns all that do.
func (e *Engine) WantRecords(tb testing.TB, n int, f Fields) []Record {
	tb.Helper()
	var found []Record
	if Eventually(func() bool {
		found = e.Find(tb, f)
		return len(found) >= n
	}) {
		return found
	}
	tb.Fatalf("%d of %d records with %s; the log is:\n%s", len(found), n, f, e.Dump(tb))
	return nil
}

// NoRecord fails the test if a record has f now. What is to be absent must
// have had its chance: wait for a later record first.
func (e *Engine) NoRecord(tb testing.TB, f Fields) {
	tb.Helper()
	if found := e.Find(tb, f); len(found) > 0 {
		tb.Errorf("%d records with %s, want none; the first is:\n%s", len(found), f, found[0].Line)
	}
}

// Dump returns the log's lines, for a test that fails.
func (e *Engine) Dump(tb testing.TB) string {
	tb.Helper()
	var b strings.Builder
	for _, r := range e.Records(tb) {
		b.WriteString(r.Line)
		b.WriteByte('\n')
	}
	return b.String()
}

// Eventually polls cond until it holds and reports whether it did before
// patience ran out.
func Eventually(cond func() bool) bool {
	deadline := time.Now().Add(patience)
	for wait := 200 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(wait)
	}
}
