//go:build python

package audit

import (
	"encoding/hex"
	"os/exec"
	"strings"
	"testing"
)

// TestPythonVerifiesWhatTheEngineWrote runs a verifier that was written from
// the description of the format, with nothing but Python's standard library.
func TestPythonVerifiesWhatTheEngineWrote(t *testing.T) {
	file := logFile(t)
	var paths []string
	for range 2 { // a restart between
		l := open(t, Config{File: file, Start: map[string]string{"version": "v1", "größe": "😀"}})
		for i, s := range hostile {
			r := decision(uint64(i + 1))
			r.Path, r.Host, r.Detail, r.QueryKeys = []byte(s), s, s, []string{s}
			r.Agent = &Agent{Namespace: s, ServiceAccount: s, Pod: s, Claimed: s, InvokingUser: s}
			if _, err := l.Decide(r); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, hex.EncodeToString([]byte(s[:cutAt(s, maxPath)])))
			check(t, l.Complete(everything()))
			paths = append(paths, hex.EncodeToString([]byte(everything().Path[:maxPath])))
		}
		closeLog(t, l)
	}
	verified(t, file)
	out, err := exec.Command("python3", "testdata/verify.py", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if !strings.HasPrefix(lines[len(lines)-1], "ok ") {
		t.Fatal(lines[len(lines)-1])
	}
	for i, want := range paths {
		if lines[i] != want {
			t.Fatalf("path %d: Python recovered %s, want %s", i, lines[i], want)
		}
	}
	if out, err := exec.Command("python3", "testdata/verify.py", "testdata/stock.jsonl", file).CombinedOutput(); err == nil {
		t.Fatalf("Python took two chains for one: %s", out)
	}
}
