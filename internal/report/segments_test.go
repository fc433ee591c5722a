package report

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// rotatedLog is an engine's log of n requests in several files, the oldest of
// which is compressed.
func rotatedLog(t *testing.T, n int) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := audit.Open(audit.Config{File: path, Rotate: audit.Rotation{Size: 8 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	r := &audit.Record{
		Attempt: 1, Scheme: "https", Host: "api.example", Port: 443, Method: "POST", Path: []byte("/v1"), Rule: "chat", Policy: "p", PolicyRevision: "sha256:0123456789ab",
		Agent: &audit.Agent{Namespace: "support", ServiceAccount: "bot"},
	}
	for i := range n {
		r.ID, r.Event, r.Phase, r.RequestBytes = uint64(i+1), audit.EgressAllowed, audit.PhaseDecision, 0
		if _, err := l.Decide(r); err != nil {
			t.Fatal(err)
		}
		r.Phase, r.RequestBytes = audit.PhaseComplete, 100
		if err := l.Complete(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := audit.Segments(path)
	if err != nil || len(segments) < 2 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	var files []string
	for _, s := range segments {
		files = append(files, s.Name)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, files[0], zipped.Bytes())
	return append(files, path)
}

func TestAReportOfSeveralFiles(t *testing.T) {
	const n = 60
	files := rotatedLog(t, n)
	r := gather(t, Options{Files: files})
	if r.c.total[allowed] != n || r.c.open.n != 0 || r.c.hosts.rows["api.example"].out != 100*n {
		t.Errorf("%d requests, %d open, %d bytes", r.c.total[allowed], r.c.open.n, r.c.hosts.rows["api.example"].out)
	}
	md := markdownOf(t, r)
	has(t, md, "| Heartbeat `segment` |", "stopped", "audit.log.000000000001`")
	hasNot(t, md, "INCOMPLETE", "began before this log")

	// The oldest file is gone: what is left says what is missing.
	r = gather(t, Options{Files: files[1:]})
	md = markdownOf(t, r)
	has(t, md, "INCOMPLETE: the records 1 to ", "began before this log", "stopped")
	if r.c.total[allowed] >= n || r.c.total[allowed] == 0 {
		t.Errorf("%d requests of %d", r.c.total[allowed], n)
	}

	// One of them twice is no log.
	if _, err := Gather(Options{Files: append(files[:1:1], files...)}); err == nil {
		t.Error("a file that was given twice was reported on")
	}
}
