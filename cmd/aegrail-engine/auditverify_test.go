package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProgressIsALineThatGoesAway(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "log")
	if err := os.WriteFile(file, make([]byte, 4e6), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := totalSize([]string{file, file}); got != 8e6 {
		t.Errorf("%d bytes", got)
	}
	if got := totalSize([]string{file, dir}) + totalSize([]string{"-"}); got != 0 {
		t.Errorf("%d bytes of what is no file", got)
	}
	var out strings.Builder
	if newProgress(&out, []string{file}) != nil {
		t.Error("progress where there is no terminal")
	}
	at := time.Date(2026, 5, 15, 9, 42, 11, 0, time.UTC)
	for _, total := range []int64{8e6, 0} {
		p := &progress{out: &out, now: func() time.Time { return at }, total: total}
		p.at(1e6)
		at = at.Add(100 * time.Millisecond)
		p.at(2e6)
		p.clear()
		if out.Len() != 0 {
			t.Fatalf("%q within a moment", out.String())
		}
		at = at.Add(900 * time.Millisecond)
		p.at(4e6)
		want := "\r\x1b[Kverifying: 50% of 8 MB, 4 MB/s"
		if total == 0 {
			want = "\r\x1b[Kverifying: 4 MB, 4 MB/s"
		}
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
		out.Reset()
		p.clear()
		if out.String() != "\r\x1b[K" {
			t.Errorf("%q is left", out.String())
		}
		out.Reset()
	}
}
