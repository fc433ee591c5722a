//go:build python

package audit

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
			paths = append(paths, hex.EncodeToString(everything().Path[:maxPath]))
		}
		closeLog(t, l)
	}
	verified(t, file)
	lines := python(t, "testdata/verify.py", file)
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

// TestPythonVerifiesRandomRecords has fields of random bytes, all of one size
// or another, in records whose hash Python recomputes.
func TestPythonVerifiesRandomRecords(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a fixed sequence is wanted
	text := func() string {
		b := make([]byte, rng.IntN(1+rng.IntN(2*maxName)))
		kind := rng.IntN(3)
		for i := range b {
			switch b[i] = byte(rng.UintN(256)); kind {
			case 0: // any bytes
			case 1:
				b[i] &= 0x7f
			default: // much of it UTF-8
				if c := "é😀\u2028\x7f\"\\/\n€"; rng.IntN(8) > 0 {
					b[i] = c[i%len(c)]
				}
			}
		}
		return string(b)
	}
	file := logFile(t)
	l := open(t, Config{File: file, Start: map[string]string{"😀": text(), "\uffff": text(), "\ue000": "", "é": text(), "a": text()}})
	var paths []string
	for id := range uint64(3000) {
		r := everything()
		r.Path, r.Host, r.Method, r.SNI, r.Detail, r.Reason, r.Rule = []byte(text()), text(), text(), text(), text(), text(), text()
		r.ID, r.Policy, r.PolicyRevision, r.Kind, r.ALPN, r.QueryKeys = id, text(), text(), text(), text(), []string{text(), text()}
		r.Agent = &Agent{Identity: text(), Namespace: text(), ServiceAccount: text(), Pod: text(), Claimed: text(), InvokingUser: text()}
		r.StatusCode, r.RequestBytes, r.ResponseBytes, r.Count = int(rng.Int32()), rng.Int64(), -rng.Int64(), rng.Int64()
		check(t, l.Complete(r))
		if path, _, _ := strings.Cut(string(r.Path), "?"); path != "" {
			if path, _, _ = strings.Cut(path, "#"); path != "" {
				paths = append(paths, hex.EncodeToString([]byte(path[:cutAt(path, maxPath)])))
			}
		}
	}
	closeLog(t, l)
	rep := verified(t, file)
	lines := python(t, "testdata/verify.py", file)
	if want := fmt.Sprintf("ok %d %s", rep.Records, rep.Head); lines[len(lines)-1] != want {
		t.Fatalf("Python says %s, want %s", lines[len(lines)-1], want)
	}
	if diff := cmp.Diff(paths, lines[:len(lines)-1]); diff != "" {
		t.Fatalf("paths that Python recovered: %s", diff)
	}
}

// TestRandomRecordsOfPythonVerify reads what json.dumps wrote, as it is hashed
// and in other spellings, and writes it back as json.dumps did.
func TestRandomRecordsOfPythonVerify(t *testing.T) {
	for seed, spelling := range []string{"canonical", "library", "any", "canonical", "any"} {
		const records = 3000
		cmd := exec.Command("python3", "testdata/generate.py", fmt.Sprint(seed), fmt.Sprint(records), spelling)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, stderr.Bytes())
		}
		file := write(t, logFile(t), stdout.Bytes())
		rep := verified(t, file)
		if rep.Records != records || rep.Head != strings.TrimSpace(stderr.String()) || (rep.Respelled == 0) != (spelling == "canonical") {
			t.Fatalf("%s: %+v, Python's head is %s", spelling, rep, stderr.Bytes())
		}
		var r respeller
		for text := range bytes.Lines(stdout.Bytes()) {
			text = bytes.TrimSuffix(text, []byte("\n"))
			if b, err := r.respell(text); err != nil || spelling == "canonical" && !bytes.Equal(b, text) {
				t.Fatalf("%s\nis written back as\n%s: %v", text, b, err)
			}
		}
		python(t, "testdata/verify.py", file)
		l := open(t, Config{File: file}) // and is continued
		mustDecide(t, l, 1)
		closeLog(t, l)
		python(t, "testdata/verify.py", file)
	}
}

// TestPythonVerifiesWhatTheLibraryWrote reads the library's spelling with and
// without the engine's records behind it.
func TestPythonVerifiesWhatTheLibraryWrote(t *testing.T) {
	file := write(t, logFile(t), contents(t, "testdata/library.jsonl"))
	l := open(t, Config{File: file})
	mustDecide(t, l, 1)
	closeLog(t, l)
	rep := verified(t, file)
	lines := python(t, "testdata/verify.py", file)
	if want := fmt.Sprintf("ok %d %s", rep.Records, rep.Head); lines[len(lines)-1] != want {
		t.Fatalf("Python says %s, want %s", lines[len(lines)-1], want)
	}
}

// python runs a script and returns its lines.
func python(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("python3", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestPythonVerifiesSegmentsAndCheckpoints recomputes the trees of a rotated
// log, also from a segment on whose predecessors are gone.
func TestPythonVerifiesSegmentsAndCheckpoints(t *testing.T) {
	file := write(t, logFile(t), contents(t, "testdata/library.jsonl"))
	c := Config{File: file, Key: key(signer(t)), Rotate: Rotation{Size: 8 << 10}}
	for id := range uint64(3) {
		l := open(t, c)
		requests(t, l, 100*id+1, 30)
		l.checkpointTick()
		closeLog(t, l)
	}
	all := files(t, file)
	rep := verified(t, all...)
	for from := range all {
		lines := python(t, append([]string{"testdata/verify.py"}, all[from:]...)...)
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "ok ") || !strings.HasSuffix(last, rep.Head) {
			t.Fatalf("from segment %d Python says %s, want %s", from, last, rep.Head)
		}
	}
	if out, err := exec.Command("python3", "testdata/verify.py", all[0], all[2]).CombinedOutput(); err == nil {
		t.Fatalf("Python did not miss a segment: %s", out)
	}
}
