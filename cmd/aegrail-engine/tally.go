package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// tallyLines is how many different lines the summary has at most.
const tallyLines = 20

// tally is the second place that exec's log is written to: it shows each
// denial as it happens and counts everything for the summary. A record is in
// the file before it is here.
type tally struct {
	out   io.Writer
	paint painter

	mu    sync.Mutex
	seen  map[seen]int64 // guarded by mu
	total map[string]int64
}

// seen is one line of the summary.
type seen struct{ verdict, method, target, reason string }

func newTally(out io.Writer, paint painter) *tally {
	return &tally{out: out, paint: paint, seen: map[seen]int64{}, total: map[string]int64{}}
}

// Write takes whole lines of the log. It never fails: a summary that cannot be
// printed must not stop the log.
func (t *tally) Write(lines []byte) (int, error) {
	err := audit.Read(bytes.NewReader(lines), func(e *audit.Entry) error {
		t.add(logged{e})
		return nil
	})
	if err != nil {
		fmt.Fprintf(t.out, "aegrail-engine: a record that cannot be shown: %v\n", err)
	}
	return len(lines), nil
}

// add counts a record and shows a denial.
func (t *tally) add(l logged) {
	s := seen{method: l.Method, target: l.Host, reason: l.Reason}
	switch {
	case l.failed():
		s.verdict = "failed"
	case l.Event == audit.EgressDenied.String():
		s.verdict = "denied"
	case l.isDecision() && l.Observed:
		s.verdict = "observed"
	case l.isDecision():
		s.verdict, s.reason = "allowed", ""
	default:
		return // a completion, or the engine's own
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[s] += l.times()
	t.total[s.verdict] += l.times()
	if s.verdict != "allowed" {
		fmt.Fprintf(t.out, "aegrail-engine: %s %s  %s\n", t.colour(s.verdict), l.request(), printable(l.Reason))
	}
}

func (t *tally) colour(verdict string) string {
	switch strings.TrimSpace(verdict) {
	case "allowed":
		return t.paint.green(verdict)
	case "observed":
		return t.paint.yellow(verdict)
	default:
		return t.paint.red(verdict)
	}
}

// summary says what came of it all, the most frequent first. missed is how many
// batches of records were not shown, because the terminal was too slow.
func (t *tally) summary(file string, missed int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "aegrail-engine: %d allowed, %d denied", t.total["allowed"]+t.total["observed"], t.total["denied"])
	if n := t.total["observed"]; n > 0 {
		fmt.Fprintf(t.out, " (%d only because of observe)", n)
	}
	if n := t.total["failed"]; n > 0 {
		fmt.Fprintf(t.out, ", %d failed", n)
	}
	fmt.Fprintf(t.out, "; log in %s\n", file)
	if missed > 0 {
		fmt.Fprintln(t.out, "  more than could be shown: the log has all of it, and this summary has not")
	}
	lines := slices.SortedFunc(maps.Keys(t.seen), func(a, b seen) int {
		return cmp.Or(-cmp.Compare(t.seen[a], t.seen[b]), strings.Compare(a.target, b.target), strings.Compare(a.method, b.method), strings.Compare(a.reason, b.reason))
	})
	for i, s := range lines {
		if i == tallyLines {
			fmt.Fprintf(t.out, "  … and %d more kinds\n", len(lines)-i)
			break
		}
		what := strings.TrimSpace(printable(s.method + " " + s.target + "  " + s.reason))
		fmt.Fprintf(t.out, "  %6d %s %s\n", t.seen[s], t.colour(fmt.Sprintf("%-8s", s.verdict)), what)
	}
}
