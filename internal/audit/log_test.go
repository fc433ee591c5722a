package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	beKilled()
	goleak.VerifyTestMain(m)
}

func TestARequestLeavesTwoRecordsAndTheReceiptCoversItAlone(t *testing.T) {
	for _, d := range []Durability{Written, Strict} {
		file := logFile(t)
		l := open(t, Config{File: file, Durability: d, Identity: "gw", PolicyRevision: "sha256:1", Start: map[string]string{"version": "v1"}})
		rc := mustDecide(t, l, 7)
		if rc.Covers(8) || rc.Seq() != 2 {
			t.Fatalf("%+v", rc)
		}
		if err := l.Complete(completion(7)); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		rep := verified(t, file)
		if rep.Records != 4 || rep.Incomplete != 0 || rep.Sessions != 1 || rep.FirstSeq != 1 || rep.LastSeq != 4 || rep.Authenticated {
			t.Fatalf("%+v", rep)
		}
		all := entries(t, file)
		for i, want := range []string{"engine_start", "egress_allowed", "egress_allowed", "engine_shutdown"} {
			if all[i].Event != want || all[i].Session != l.SessionID() || all[i].Seq != uint64(i+1) {
				t.Errorf("record %d: %+v", i, all[i])
			}
		}
		if !bytes.Contains(all[0].Raw, []byte(`"durability":"`+d.String()+`","engine":{"version":"v1"},"policy_revision":"sha256:1","seq":1}`)) {
			t.Errorf("engine_start: %s", all[0].Raw)
		}
		st, err := os.Stat(file)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
	}
}

func TestZeroReceiptCoversNothing(t *testing.T) {
	var rc Receipt
	if rc.Covers(0) || rc.Covers(1) || rc.Seq() != 0 || rc.Attempt() != 0 {
		t.Fatal("the zero Receipt covers something")
	}
}

func TestADenialGivesNoReceipt(t *testing.T) {
	l := open(t, Config{File: logFile(t)})
	r := decision(3)
	r.Event = EgressDenied
	rc, err := l.Decide(r)
	if err != nil || rc.Covers(3) || rc != (Receipt{}) {
		t.Fatalf("%+v, %v", rc, err)
	}
}

func TestRecordsOfTheWrongKindAreRefused(t *testing.T) {
	l := open(t, Config{File: logFile(t)})
	_, err := l.Decide(completion(1))
	wantErr(t, err, "takes a decision")
	_, err = l.Decide(&Record{Phase: PhaseDecision})
	wantErr(t, err, "with an event")
	wantErr(t, l.Complete(decision(1)), "not a decision")
	wantErr(t, l.Complete(&Record{}), "with an event")
	wantErr(t, l.Refuse(decision(1)), "Refuse takes")
	wantErr(t, l.Refuse(&Record{}), "Refuse takes")
	wantErr(t, l.Complete(&Record{Event: 99}), "with an event")
	if l.Err() != nil {
		t.Fatal("a caller's mistake latched")
	}
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprint(i)] = ""
	}
	notDir := write(t, filepath.Join(dir, "file"), nil)
	for _, row := range []struct {
		c     Config
		words []string
	}{
		{Config{}, []string{"--audit-file", "--audit-stdout"}},
		{Config{Stdout: io.Discard, Durability: Strict}, []string{"strict needs a file"}},
		{Config{Stdout: io.Discard, Durability: 9}, []string{"use written or strict"}},
		{Config{Stdout: io.Discard, Identity: "a\xff"}, []string{"UTF-8"}},
		{Config{Stdout: io.Discard, Identity: strings.Repeat("a", 600)}, []string{"512"}},
		{Config{Stdout: io.Discard, Start: many}, []string{"at most 32"}},
		{Config{Stdout: io.Discard, Start: map[string]string{"\xff": ""}}, []string{"UTF-8"}},
		{Config{File: filepath.Join(dir, "none", "audit.jsonl")}, []string{"there is no directory", "create it"}},
		{Config{File: filepath.Join(notDir, "audit.jsonl")}, []string{"there is no directory"}},
		{Config{File: sub}, []string{"not a regular file", "--audit-stdout"}},
		{Config{File: link}, []string{"not a regular file"}},
		{Config{File: "/dev/null"}, []string{"not a regular file"}},
	} {
		l, err := Open(row.c)
		if err == nil {
			_ = l.Close()
			t.Errorf("%+v opened", row.c)
			continue
		}
		wantErr(t, err, row.words...)
	}
}

func TestASecondWriterIsRefused(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	_, err := Open(Config{File: file})
	wantErr(t, err, file, "another engine is writing it", "own --audit-file")
	closeLog(t, l)
	closeLog(t, open(t, Config{File: file}))
	verified(t, file)
}

func TestARestartContinuesTheChain(t *testing.T) {
	file := logFile(t)
	for i := range uint64(3) {
		l := open(t, Config{File: file})
		if rc := mustDecide(t, l, i+1); rc.Seq() != i*4+2 {
			t.Fatalf("start %d: seq %d", i, rc.Seq())
		}
		if err := l.Complete(completion(i + 1)); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
	}
	if rep := verified(t, file); rep.Sessions != 3 || rep.LastSeq != 12 || rep.Events["engine_start"] != 3 {
		t.Fatalf("%+v", rep)
	}
	all := entries(t, file)
	if bytes.Contains(all[0].Raw, []byte("resumed")) || !bytes.Contains(all[4].Raw, []byte(`"resumed":true`)) {
		t.Fatalf("resumed: %s\n%s", all[0].Raw, all[4].Raw)
	}
}

func TestAClosedLogTakesNothing(t *testing.T) {
	l := open(t, Config{File: logFile(t)})
	closeLog(t, l)
	if err := noReceipt(t, l, 1); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	for _, err := range []error{l.Complete(completion(1)), l.Refuse(denial(nil, "x")), l.Err()} {
		if !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	}
	l.tick()
	closeLog(t, l)
}

func TestManyWritersMakeOneChain(t *testing.T) {
	for _, d := range []Durability{Written, Strict} {
		file := logFile(t)
		l := open(t, Config{File: file, Durability: d})
		var wg sync.WaitGroup
		const workers, each = 16, 40
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					id := uint64(w*each + i + 1)
					rc, err := l.Decide(decision(id))
					if err != nil || !rc.Covers(id) {
						t.Errorf("request %d: %+v, %v", id, rc, err)
					}
					if err := l.Complete(completion(id)); err != nil {
						t.Error(err)
					}
					_ = l.Stats()
				}
			})
		}
		wg.Wait()
		s := l.Stats()
		closeLog(t, l)
		rep := verified(t, file)
		if rep.Records != 2*workers*each+2 || rep.Incomplete != 0 || rep.Unasked != 0 {
			t.Fatalf("%+v", rep)
		}
		if s.Records != 2*workers*each+1 || s.Commits > s.Records || s.Failures != [Causes]int64{} || s.Pending != 0 || s.Seq != rep.LastSeq-1 {
			t.Fatalf("%+v", s)
		}
	}
}

// TestL04TheBatchBehindAFailedOneFailsToo holds a leader in its write while
// others queue up behind it, and then fails it.
func TestL04TheBatchBehindAFailedOneFailsToo(t *testing.T) {
	fs := &faultFS{}
	file := logFile(t)
	l := open(t, Config{File: file, fs: fs})
	gate, held := make(chan error), make(chan struct{})
	fs.set(func(f *faultFS) {
		f.write = func([]byte) (int, error) { held <- struct{}{}; return 0, <-gate }
	})
	results := make(chan error)
	go func() { results <- noReceiptErr(l, 1) }()
	<-held
	for id := range uint64(5) {
		go func() { results <- noReceiptErr(l, id+2) }()
	}
	for l.Stats().Pending < 6 {
		runtime.Gosched()
	}
	fs.set(func(f *faultFS) { f.write = nil })
	gate <- errNoSpace
	for range 6 {
		if err := <-results; err == nil || !errors.Is(err, errNoSpace) {
			t.Errorf("a request was let through: %v", err)
		}
	}
	mustDecide(t, l, 9)
	closeLog(t, l)
	if rep := verified(t, file); rep.Records != 4 {
		t.Fatalf("%+v", rep)
	}
}

func noReceiptErr(l *Log, id uint64) error {
	rc, err := l.Decide(decision(id))
	if rc.Covers(id) {
		return nil
	}
	return err
}

func TestCloseWaitsForACommitThatRuns(t *testing.T) {
	fs := &faultFS{}
	file := logFile(t)
	l := open(t, Config{File: file, fs: fs})
	gate, held := make(chan struct{}), make(chan struct{})
	fs.set(func(f *faultFS) {
		f.before = func() { held <- struct{}{}; <-gate }
	})
	done := make(chan error, 2)
	go func() { _, err := l.Decide(decision(1)); done <- err }()
	<-held
	go func() { done <- l.Close() }()
	for l.Stats().Pending < 2 {
		runtime.Gosched()
	}
	fs.set(func(f *faultFS) { f.before = nil })
	close(gate)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if rep := verified(t, file); rep.Records != 3 || rep.Incomplete != 1 {
		t.Fatalf("%+v", rep)
	}
}

func TestNothingIsAllocatedForARecord(t *testing.T) {
	l := open(t, Config{File: logFile(t)})
	d, c := decision(1), completion(1)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := l.Decide(d); err != nil {
			t.Fatal(err)
		}
		if err := l.Complete(c); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Fatalf("%v allocations for a decision and a completion", n)
	}
}

func TestL08AClockThatIsSetIsRecordedAndOrderIsBySeq(t *testing.T) {
	wall, file := newClock(), logFile(t)
	var mono time.Duration
	l := open(t, Config{File: file, Now: wall.now, elapsed: func() time.Duration { return mono }})
	step := func(w, m time.Duration) {
		wall.add(w)
		mono += m
		mustDecide(t, l, 1)
	}
	step(time.Second, time.Second)
	step(-time.Hour, time.Second)
	step(365*24*time.Hour, 2*time.Second)
	step(10*time.Hour, 10*time.Hour)
	step(500*time.Millisecond, 0)
	closeLog(t, l)
	wall.add(-24 * time.Hour)
	closeLog(t, open(t, Config{File: file, Now: wall.now}))
	verified(t, file)
	want := []int64{0, 0, -3601000, 31535998000, 0, 0, 0, -86400000, 0}
	for i, e := range entries(t, file) {
		if e.ClockJumpMS != want[i] || e.Seq != uint64(i+1) {
			t.Errorf("record %d: seq %d, jump %d, want %d", i, e.Seq, e.ClockJumpMS, want[i])
		}
	}
}

func TestL08AStepBackShowsWithoutAMonotonicClock(t *testing.T) {
	wall, file := newClock(), logFile(t)
	l := open(t, Config{File: file, Now: wall.now})
	wall.add(-time.Hour)
	mustDecide(t, l, 1)
	wall.add(time.Hour)
	mustDecide(t, l, 2)
	all := entries(t, file)
	if all[1].ClockJumpMS != -3600000 || all[2].ClockJumpMS != 0 {
		t.Fatalf("%d, %d", all[1].ClockJumpMS, all[2].ClockJumpMS)
	}
}

func TestL10ACrashLeavesTheDecisionAndVerifySaysSo(t *testing.T) {
	file := logFile(t)
	l := open(t, Config{File: file})
	mustDecide(t, l, 0xabc)
	mustDecide(t, l, 2)
	if err := l.Complete(completion(2)); err != nil {
		t.Fatal(err)
	}
	crashed := write(t, logFile(t), contents(t, file))
	l2 := open(t, Config{File: crashed})
	if err := l2.Complete(completion(99)); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l2)
	rep := verified(t, crashed)
	if rep.Incomplete != 1 || rep.IncompleteIDs[0] != "record 2, "+l.SessionID()+"/0000000000000abc" || rep.Unasked != 1 {
		t.Fatalf("%+v", rep)
	}
	var out strings.Builder
	if err := rep.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"1 requests were allowed and have no completion", "0000000000000abc", "1 completions have no decision", "unauthenticated", "seq 1 to 7", "4 egress_allowed"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("the report does not say %q:\n%s", w, &out)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, d := range []Durability{Written, Strict} {
		b.Run(d.String(), func(b *testing.B) {
			l := open(b, Config{File: logFile(b), Durability: d})
			dr, cr := decision(1), completion(1)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Decide(dr); err != nil {
					b.Fatal(err)
				}
				if err := l.Complete(cr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParallel(b *testing.B) {
	l := open(b, Config{File: logFile(b)})
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		dr := decision(1)
		for pb.Next() {
			if _, err := l.Decide(dr); err != nil {
				b.Fatal(err)
			}
		}
	})
	s := l.Stats()
	b.ReportMetric(float64(s.Records)/float64(s.Commits), "records/commit")
}

func TestCommitTimesAreCountedInBuckets(t *testing.T) {
	l := open(t, Config{File: logFile(t)})
	mustDecide(t, l, 1)
	s := l.Stats()
	n := int64(0)
	for _, c := range s.CommitCounts {
		n += c
	}
	if n != s.Commits || len(s.CommitBuckets()) != len(s.CommitCounts)-1 || s.CommitSeconds <= 0 {
		t.Fatalf("%+v", s)
	}
}
