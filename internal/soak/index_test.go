package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// logFile is a log that a test writes and rotates.
type logFile struct {
	t    *testing.T
	file string
	seq  int
}

func (l *logFile) write(text string) {
	l.t.Helper()
	f, err := os.OpenFile(l.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		l.t.Fatal(err)
	}
}

func (l *logFile) record(event, phase, path string) {
	l.t.Helper()
	l.seq++
	l.write(fmt.Sprintf(`{"event":%q,"payload":{"seq":%d,"attempt":1,"phase":%q,"method":"GET","host":"a","path":%q}}`+"\n", event, l.seq, phase, path))
}

func (l *logFile) rotate() {
	l.t.Helper()
	if err := os.Rename(l.file, fmt.Sprintf("%s.%012d", l.file, l.seq)); err != nil {
		l.t.Fatal(err)
	}
	l.write("")
}

// TestALogIsReadAcrossItsFiles has rotations between looks, several at once.
func TestALogIsReadAcrossItsFiles(t *testing.T) {
	l := &logFile{t: t, file: filepath.Join(t.TempDir(), "audit.jsonl")}
	x := newIndex(l.file)
	l.write("")
	decided := func(want int) {
		t.Helper()
		if n, err := x.decided("GET", "/a"); err != nil || n != want {
			t.Errorf("%d decisions, %v; want %d", n, err, want)
		}
	}
	decided(0)
	l.record("egress_allowed", "decision", "/a")
	decided(1)
	l.record("egress_allowed", "complete", "/a")
	l.rotate()
	l.record("egress_allowed", "decision", "/a")
	l.rotate()
	l.record("egress_denied", "decision", "/a")
	l.rotate()
	decided(2)
	l.record("egress_allowed", "decision", "/a")
	l.write(`{"event":"egress_allowed","payload":{"seq":6,`)
	decided(3)
	l.write(`"phase":"decision","method":"POST","host":"a","path":"/a"}}` + "\n")
	decided(3) // another method
	told := x.by["/a"]
	if len(told.decisions) != 4 || len(told.ends) != 1 || len(told.denials) != 1 || len(x.broken) != 0 || x.records != 6 {
		t.Errorf("%d decisions, %d ends, %d denials of %d records; broken: %q", len(told.decisions), len(told.ends), len(told.denials), x.records, x.broken)
	}
	l.seq = 8
	l.record("egress_allowed", "decision", "/b")
	decided(3)
	if len(x.broken) != 1 {
		t.Errorf("a record that is missing is not missed: %q", x.broken)
	}
}
