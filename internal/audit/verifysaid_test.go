package audit

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// verifySays holds files against the anchor and asserts what the error says and
// what it does not.
func verifySays(t *testing.T, w *witnessed, anchor []byte, names []string, want string, not ...string) {
	t.Helper()
	_, err := w.against(anchor, checkpoint.Verifiers{}, names...)
	wantErr(t, err, want)
	for _, words := range not {
		if strings.Contains(err.Error(), words) {
			t.Errorf("%v: it says %q", err, words)
		}
	}
}

func TestADamageIsPutDownToItsCause(t *testing.T) {
	w := witnessLog(t, 20, Config{Rotate: Rotation{Size: 8 << 10}})
	all := files(t, w.file)
	if len(all) < 3 {
		t.Fatal(len(all))
	}
	mangled := func(i int, change func([]byte) []byte) []string {
		t.Helper()
		out := append([]string(nil), all...)
		out[i] = write(t, filepath.Join(t.TempDir(), filepath.Base(all[i])), change(contents(t, all[i])))
		return out
	}
	const order = "files are given oldest first"
	head := entries(t, all[2])[0]

	// A changed first line of a file is no matter of the files' order.
	verifySays(t, w, nil, mangled(1, func(b []byte) []byte { return bytes.Replace(b, []byte("2"), []byte("3"), 1) }), "the record was changed", order)
	// A file that is missing, or in another place, is: the header names it.
	verifySays(t, w, nil, append(all[:1:1], all[2:]...), fmt.Sprintf("this file continues %s with record %d", head.Segment, head.Seq))
	verifySays(t, w, nil, append(all[:1:1], all[2:]...), order)
	// Elsewhere the number says how many are missing.
	without := func(b []byte) []byte {
		l := bytes.SplitAfter(b, []byte("\n"))
		return bytes.Join(append(l[:1:1], l[3:]...), nil)
	}
	verifySays(t, w, nil, mangled(0, without), "a record was removed, inserted or moved (payload.seq is 4, and 2 was to come)", order)
	// A file that was converted on its way.
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	verifySays(t, w, nil, mangled(0, crlf), "the line ends with a carriage return")
	verifySays(t, w, nil, mangled(0, func(b []byte) []byte { return append([]byte("\ufeff"), b...) }), "a byte order mark")
	verifySays(t, w, crlf(w.anchor()), all, "the anchor: reading an anchor: line 1: it ends with a carriage return")

	// A segment that was emptied is not one that was not given.
	verifySays(t, w, nil, mangled(0, func([]byte) []byte { return nil }), fmt.Sprintf("the records 1 to %d are missing: the files that were given before this one are empty", entries(t, all[1])[0].Seq-1))
	verified(t, all[1:]...)

	// The anchor of another log was not rewritten by anybody.
	other := witnessLog(t, 3, Config{})
	verifySays(t, w, other.anchor(), all, ", or the anchor is another log's")
	// And which note of an anchor is false can be found.
	_, err := w.against(bytes.Replace(w.anchor(), []byte("\ntime 2"), []byte("\ntime 3"), 1), trusted(t, w.s), all...)
	wantErr(t, err, "the anchor: checkpoint 1: ", "is false")
}

// TestATornEndIsHeldAgainstTheAnchorToo has somebody cut the log within a record:
// what a crash leaves looks the same, but a crash takes nothing that is anchored.
func TestATornEndIsHeldAgainstTheAnchorToo(t *testing.T) {
	w := witnessLog(t, 10, Config{})
	b := contents(t, w.file)
	all := lines(t, w.file)
	newest := w.sizes[len(w.sizes)-1]
	torn := func(records int) string {
		at := len(strings.Join(all[:records], "\n")) + 1
		return write(t, logFile(t), b[:at+len(all[records])/2])
	}
	const crash = "a crash leaves it so, and an engine that runs for a moment"
	cut := torn(int(newest) - 5)
	verifySays(t, w, w.anchor(), []string{cut}, "the last 5 records that were anchored at ", crash)
	verifySays(t, w, nil, []string{cut}, crash, "anchored")
	rep, err := w.against(nil, trusted(t, w.s), write(t, logFile(t), append(bytes.Clone(b), "{"...)))
	wantDamage(t, err, int64(len(all))+1, crash)
	wantReport(t, rep, fmt.Sprintf("authenticated: records 1 to %d ", newest), "behind them is that checkpoint, and then the damage")
	verifySays(t, w, w.anchor(), []string{torn(len(all) - 1)}, crash, "anchored")
	// With another file behind, it is neither.
	verifySays(t, w, w.anchor(), []string{cut, w.file}, "the file ends in the middle of a record, and others were given behind it", "crash", "anchored")
}

func TestAnAnchorAloneProvesWhatItCovers(t *testing.T) {
	w := witnessLog(t, 10, Config{})
	said := func(anchor []byte, names ...string) string {
		t.Helper()
		rep, err := w.against(anchor, checkpoint.Verifiers{}, names...)
		check(t, err)
		var b strings.Builder
		check(t, rep.Write(&b))
		return b.String()
	}
	const could = "could have signed it anew"
	newest := w.sizes[len(w.sizes)-1]
	proven := "records 1 to %d are those that were anchored"
	if got := said(w.anchor(), w.file); !strings.Contains(got, fmt.Sprintf(proven, newest)) || strings.Contains(got, could) || strings.Contains(got, "behind them") {
		t.Errorf("all of it: %s", got)
	}
	if got := said(w.notes[1], w.file); !strings.Contains(got, fmt.Sprintf(proven, w.sizes[1])) ||
		!strings.Contains(got, fmt.Sprintf("the %d records behind them", newest+1-w.sizes[1])) {
		t.Errorf("a part: %s", got)
	}
	if got := said(nil, w.file); !strings.Contains(got, could) {
		t.Errorf("without: %s", got)
	}
}

// TestACompletionWhoseDecisionWasNotGivenIsNoOddity begins with a later segment.
func TestACompletionWhoseDecisionWasNotGivenIsNoOddity(t *testing.T) {
	w := witnessLog(t, 1, Config{})
	l := open(t, Config{File: w.file, Key: key(w.s), Rotate: Rotation{Size: 8 << 10}})
	mustDecide(t, l, 100)
	for id := uint64(1); len(files(t, w.file)) < 2; id++ {
		requests(t, l, id, 1)
	}
	check(t, l.Complete(completion(100)))
	closeLog(t, l)
	all := files(t, w.file)
	wantReport(t, verified(t, all[len(all)-1]), "1 completions have no decision before them: it may stand in the records that were not given")
}
