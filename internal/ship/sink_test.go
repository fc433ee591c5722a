package ship

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

func TestAWebhookGetsTheLogAsItIs(t *testing.T) {
	e, rc := newLog(t), newReceiver(t)
	e.records(t, 1)
	s := start(t, e, Config{Sinks: []Target{sinkAt(t, "http://user:hunter2@"+strings.TrimPrefix(rc.URL, "http://")+"/in?x=1")}})
	rc.wantLog(t, e)
	requests, _, _, h := rc.got()
	for k, want := range map[string]string{
		"Content-Type": "application/x-ndjson", "X-Aegrail-Log": e.SessionID(), "X-Aegrail-Last-Seq": "2", "Content-Encoding": "",
		"User-Agent": "aegrail-engine/v1", "Authorization": "Basic dXNlcjpodW50ZXIy",
	} {
		if h.Get(k) != want {
			t.Errorf("%s: %q, want %q", k, h.Get(k), want)
		}
	}
	e.records(t, 3*maxRecords)
	rc.wantLog(t, e)
	if _, lines, _, h := rc.got(); h.Get("Content-Encoding") == "" && len(lines) < 100 {
		t.Error("nothing was compressed")
	}
	if after, _, _, _ := rc.got(); after-requests > 3*maxRecords/10 {
		t.Errorf("%d requests for %d records", after-requests, 3*maxRecords)
	}
	check(t, e.Close())
	check(t, s.Close(t.Context()))
	rc.wantLog(t, e)
	if st := s.Sinks()[0]; st.Kind != Webhook || st.Lag != 0 || st.Acknowledged != e.committed() || st.Failures != 0 || st.LastError != "" {
		t.Errorf("%+v", st)
	}
	if b, err := os.ReadFile(s.sinks[0].position); err != nil || string(b) != fmt.Sprintln(e.committed()) {
		t.Errorf("%q, %v", b, err)
	}
	st, err := os.Stat(s.sinks[0].position)
	check(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Error(st.Mode())
	}
}

func TestASinkOutlastsEveryFault(t *testing.T) {
	elsewhere := newReceiver(t)
	e := newLog(t)
	rc := newReceiver(t, status(500), reset, status(307, "Location", elsewhere.URL), status(429, "Retry-After", "0"), hang, lose, dribble,
		status(401), status(404), status(301, "Location", elsewhere.URL), lose, status(503, "Retry-After", "x"), reset)
	e.records(t, 700)
	var log said
	s := start(t, e, Config{Sinks: []Target{sinkAt(t, rc.URL)}, Logger: log.logger(), timeout: 300 * time.Millisecond})
	e.records(t, 700)
	rc.wantLog(t, e)
	eventually(t, "it says that all is well", func() bool { return strings.Contains(log.String(), "takes records again") })
	if requests, _, _, _ := elsewhere.got(); requests != 0 {
		t.Error("a redirect was followed")
	}
	if st := s.Sinks()[0]; st.Failures < 13 || st.Attempts <= st.Failures {
		t.Errorf("%+v", st)
	}
	// A line when it begins, one more when somebody has to do something, one at the end: not thirteen.
	if n := strings.Count(log.String(), "takes no records"); n < 1 || n > 4 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), "redirects are not followed") {
		t.Errorf("nothing about the redirect:\n%s", log.String())
	}
}

func TestASinkThatHangsHoldsNobodyUpAndLosesNothing(t *testing.T) {
	e, rc := newLog(t), newReceiver(t, forever(hang)...)
	s := start(t, e, Config{Sinks: []Target{sinkAt(t, rc.URL)}, timeout: time.Hour})
	e.records(t, 1)
	eventually(t, "a request hangs", func() bool { n, _, _, _ := rc.got(); return n == 1 })
	e.records(t, 2000) // would never return
	if st := s.Sinks()[0]; st.Lag != e.committed() || st.Acknowledged != 0 || s.Removable() != 0 {
		t.Errorf("%+v", st)
	}
	check(t, e.Close())
	wantErr(t, stop(s), "records wait in the log for the next start")

	rc.setFaults()
	again := openLog(t, e.file, audit.Config{})
	start(t, again, Config{Sinks: []Target{sinkAt(t, rc.URL)}})
	rc.wantLog(t, again)
}

func TestASinkGoesOnWhereItWasAfterARestart(t *testing.T) {
	file := logFile(t)
	rc := newReceiver(t)
	target := sinkAt(t, rc.URL)
	var seen int
	for round := range 5 {
		e := openLog(t, file, audit.Config{Rotate: audit.Rotation{Size: 64 << 10}})
		s := start(t, e, Config{Sinks: []Target{target}})
		e.records(t, 300)
		eventually(t, "some arrived", func() bool { _, lines, _, _ := rc.got(); return len(lines) > seen })
		rc.setFaults(forever(hang)...)
		e.records(t, 300)
		check(t, e.Close())
		rc.setFaults()
		if round%2 == 0 {
			_ = stop(s) // in the middle of a request, as a kill would
		} else {
			rc.CloseClientConnections()
			check(t, s.Close(t.Context()))
		}
		_, lines, _, _ := rc.got()
		seen = len(lines)
	}
	e := openLog(t, file, audit.Config{})
	s := start(t, e, Config{Sinks: []Target{target}})
	rc.wantLog(t, e)
	check(t, e.Close())
	check(t, s.Close(t.Context()))
	_, lines, _, _ := rc.got()
	if all := e.lines(t); len(lines) > 2*len(all) {
		t.Errorf("%d lines for %d records: it began anew each time", len(lines), len(all))
	}
}

// TestASinkSendsWhatStandsInThePlaceOfLostRecords has the log say that its disk
// came back with less than it had committed.
func TestASinkSendsWhatStandsInThePlaceOfLostRecords(t *testing.T) {
	rc, e := newReceiver(t), newLog(t)
	s := prepare(t, e.file, Config{Sinks: []Target{sinkAt(t, rc.URL)}})
	var lost atomic.Bool
	check(t, s.Start(e.SessionID(), func() audit.Stats {
		st := e.Stats()
		if lost.Load() {
			st.Rewinds, st.Rewound = 1, 20
		}
		return st
	}))
	t.Cleanup(func() { stop(s) })
	e.records(t, 99)
	eventually(t, "all arrived", func() bool { return s.Sinks()[0].Acknowledged == e.committed() })
	_, lines, _, _ := rc.got()
	before := len(lines)
	lost.Store(true)
	eventually(t, "what is behind record 20 came again", func() bool { _, lines, _, _ := rc.got(); return len(lines) == before+int(e.committed())-20 })
	_, lines, _, _ = rc.got()
	if first := e.lines(t)[20]; lines[before] != first {
		t.Errorf("began again with %s", lines[before])
	}
	e.records(t, 1)
	eventually(t, "it goes on", func() bool { return s.Sinks()[0].Acknowledged == e.committed() })
	check(t, e.Close())
	check(t, s.Close(t.Context()))
}

func TestRetentionWaitsForEveryAnchorAndSink(t *testing.T) {
	signer, file := newSigner(t), logFile(t)
	rc, slow, anchors := newReceiver(t), newReceiver(t, forever(hang)...), newReceiver(t)
	s := prepare(t, file, Config{
		Anchors: []Target{anchorAt(t, anchors.URL), anchorAt(t, filepath.Join(t.TempDir(), "notes"))},
		Sinks:   []Target{sinkAt(t, rc.URL), sinkAt(t, slow.URL)},
		timeout: time.Hour,
	})
	e := openLog(t, file, audit.Config{
		Key: func() (*checkpoint.Signer, error) { return signer, nil }, CheckpointEvery: 10 * time.Millisecond, OnCheckpoint: s.Publish,
		Rotate: audit.Rotation{Size: 8 << 10, Keep: 1, Removable: s.Removable},
	})
	check(t, s.Start(e.SessionID(), e.Stats))
	t.Cleanup(func() { stop(s) })
	e.records(t, 200)
	segments := func() []audit.Segment {
		all, err := audit.Segments(file)
		check(t, err)
		return all
	}
	eventually(t, "one sink and both anchors have it all but its end", func() bool {
		return s.Sinks()[0].Acknowledged > 200 && s.Anchors()[0].Acknowledged > 200 && s.Anchors()[1].Acknowledged > 200
	})
	if s.Removable() != 0 || len(segments()) < 5 || segments()[0].First != 1 {
		t.Errorf("removable %d, segments %v", s.Removable(), segments())
	}
	held := e.committed()
	slow.setFaults()
	slow.CloseClientConnections()
	eventually(t, "what is everywhere is removed", func() bool { return segments()[0].First > held })
	check(t, e.Close())
	check(t, s.Close(t.Context()))
	seqs := func(rc *receiver) (max uint64) {
		_, lines, _, _ := rc.got()
		for _, l := range lines {
			check(t, audit.Read(strings.NewReader(l), func(e *audit.Entry) error {
				if e.Seq > max+1 {
					t.Errorf("%d behind %d", e.Seq, max)
				}
				max = e.Seq
				return nil
			}))
		}
		return max
	}
	if a, b := seqs(rc), seqs(slow); a != b || a != e.committed() {
		t.Errorf("%d and %d of %d", a, b, e.committed())
	}
}

func TestRemovableIsNothingWithoutAnAnchorAndASink(t *testing.T) {
	file := logFile(t)
	for _, c := range []Config{
		{},
		{Sinks: []Target{sinkAt(t, "http://"+refused(t))}},
		{Anchors: []Target{anchorAt(t, file+".notes")}},
	} {
		s := prepare(t, file, c)
		for _, a := range s.anchors {
			a.acked.Store(5)
		}
		for _, k := range s.sinks {
			k.stored.Store(5)
		}
		if s.Removable() != 0 {
			t.Errorf("%+v: %d", c, s.Removable())
		}
		check(t, s.Close(t.Context())) // never started
	}
}

func TestPositionsThatCannotBeAreRefusedWithTheFix(t *testing.T) {
	e := newLog(t)
	e.records(t, 3)
	check(t, e.Close()) // 5 records
	target := sinkAt(t, "http://"+refused(t))
	newer := filepath.Join(t.TempDir(), "newer.log") // of which the beginning is gone
	check(t, os.WriteFile(newer, []byte(strings.Join(e.lines(t)[3:], "")), 0o600))
	for _, c := range []struct{ log, position, want string }{
		{e.file, "5\n", ""},
		{e.file, "0\n", ""},
		{e.file, "6\n", "ends with record 5"},
		{e.file, "5", "write into it the seq"},
		{e.file, "", "write into it the seq"},
		{e.file, "\n", "write into it the seq"},
		{e.file, "05\n", "write into it the seq"},
		{e.file, "+5\n", "write into it the seq"},
		{e.file, "-1\n", "write into it the seq"},
		{e.file, "5\n5\n", "write into it the seq"},
		{e.file, "99999999999999999999\n", "write into it the seq"},
		{e.file, strings.Repeat("1", 1<<20), "write into it the seq"},
		{newer, "3\n", ""},
		{newer, "2\n", "write 3 into the position"},
		{filepath.Join(t.TempDir(), "none.log"), "0\n", ""},
		{filepath.Join(t.TempDir(), "none.log"), "1\n", "ends with record 0"},
	} {
		check(t, os.WriteFile(positionFile(c.log, &target), []byte(c.position), 0o600))
		_, err := New(Config{Log: c.log, Sinks: []Target{target}})
		if c.want == "" {
			check(t, err)
		} else {
			wantErr(t, err, c.want, "sink http://")
			if strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("more than a line: %v", err)
			}
		}
	}
	position := positionFile(e.file, &target)
	check(t, errors.Join(os.Remove(position), os.Symlink(newer, position)))
	_, err := New(Config{Log: e.file, Sinks: []Target{target}})
	wantErr(t, err, "reading a sink's position")
	check(t, errors.Join(os.Remove(position), os.Mkdir(position, 0o700)))
	_, err = New(Config{Log: e.file, Sinks: []Target{target}})
	wantErr(t, err, "reading a sink's position")
	check(t, os.Remove(position))
	check(t, os.WriteFile(e.file, []byte("{}\n"), 0o600))
	_, err = New(Config{Log: e.file, Sinks: []Target{target}})
	wantErr(t, err, "line 1")

	// A sink that is new to a log begins with the oldest record.
	check(t, os.Remove(positionFile(newer, &target)))
	s := prepare(t, newer, Config{Sinks: []Target{target}})
	if s.sinks[0].acked.Load() != 3 {
		t.Error(s.sinks[0].acked.Load())
	}
}

func TestConfigurationsThatCannotBeAreRefused(t *testing.T) {
	file, a := logFile(t), sinkAt(t, "https://w.test/x")
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{Sinks: []Target{a}}, "give --audit-file"},
		{Config{Log: file, Sinks: []Target{a, a}}, "given twice"},
		{Config{Log: file, Sinks: []Target{{}}}, "not a sink"},
		{Config{Log: file, Anchors: []Target{a}}, "not an anchor"},
		{Config{Log: file, Anchors: []Target{{}}}, "not an anchor"},
		{Config{Log: file, Anchors: []Target{anchorAt(t, file)}}, "this is the log itself"},
		{Config{Log: file, Anchors: []Target{anchorAt(t, "https://a.test/1"), anchorAt(t, "https://a.test/1")}}, "given twice"},
	} {
		_, err := New(c.c)
		wantErr(t, err, c.want)
	}
	check(t, prepare(t, "", Config{}).Close(t.Context()))
}

func TestAPositionThatCannotBeWrittenIsSaidOnce(t *testing.T) {
	e, rc := newLog(t), newReceiver(t)
	var log said
	s := start(t, e, Config{Sinks: []Target{sinkAt(t, rc.URL)}, Logger: log.logger()})
	blocked := s.sinks[0].position + ".tmp"
	check(t, os.Mkdir(blocked, 0o700))
	e.records(t, 2)
	rc.wantLog(t, e)
	eventually(t, "it is said", func() bool { return strings.Contains(log.String(), "cannot be written down") })
	if s.sinks[0].stored.Load() != 0 {
		t.Error("stored all the same")
	}
	check(t, e.Close())
	check(t, os.Remove(blocked))
	check(t, s.Close(t.Context()))
	if s.sinks[0].stored.Load() != e.committed() || strings.Count(log.String(), "cannot be written down") != 1 {
		t.Errorf("%d\n%s", s.sinks[0].stored.Load(), log.String())
	}
}

func TestASinkReadsOnWhenItsLogIsBack(t *testing.T) {
	e, rc := newLog(t), newReceiver(t)
	var log said
	s := prepare(t, e.file, Config{Sinks: []Target{sinkAt(t, rc.URL)}, Logger: log.logger()})
	check(t, os.Rename(e.file, e.file+".away"))
	check(t, s.Start(e.SessionID(), e.Stats))
	t.Cleanup(func() { stop(s) })
	eventually(t, "it is said", func() bool { return strings.Contains(log.String(), "reading the log: ") })
	check(t, os.Rename(e.file+".away", e.file))
	rc.wantLog(t, e)
}

func TestALongRecordGoesAlone(t *testing.T) {
	k := &sink{deliver: func(_ context.Context, b *batch) error {
		if b.records > 1 && len(b.lines) > maxBytes {
			t.Errorf("%d records, %d bytes", b.records, len(b.lines))
		}
		return nil
	}, trouble: trouble{logger: (&said{}).logger()}, logger: (&said{}).logger(), state: func() audit.Stats { return audit.Stats{} }}
	k.target = sinkAt(t, "https://w.test")
	for n := range uint64(20) {
		check(t, k.take(t.Context(), &audit.Entry{Seq: n + 1, Raw: make([]byte, (n%3)*(maxBytes/2-5))}))
	}
	check(t, k.send(t.Context()))
	if k.acked.Load() != 20 || k.batch.records != 0 || cap(k.batch.lines) > 2*maxBytes {
		t.Errorf("%d, %d", k.acked.Load(), cap(k.batch.lines))
	}
}

func TestASinkThatIsSlowIsSaid(t *testing.T) {
	var log said
	written := uint64(0)
	k := &sink{deliver: func(context.Context, *batch) error { return nil }, state: func() audit.Stats { return audit.Stats{Seq: written} }}
	k.logger, k.trouble = log.logger(), trouble{logger: log.logger()}
	k.lastTry = time.Now()
	for seq := uint64(1); seq < 1000; seq++ {
		written = seq + 1000
		switch {
		case seq > 800:
		case seq > 200:
			written += farBehind
		}
		check(t, k.take(t.Context(), &audit.Entry{Seq: seq, Raw: []byte("{}")}))
		check(t, k.send(t.Context()))
	}
	if strings.Count(log.String(), "more slowly") != 1 || strings.Count(log.String(), "caught up") != 1 {
		t.Error(log.String())
	}
}

func TestServersAreVerified(t *testing.T) {
	e := newLog(t)
	rc := &receiver{stopped: make(chan struct{})}
	rc.Server = httptest.NewUnstartedServer(http.HandlerFunc(rc.serve))
	rc.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	rc.StartTLS()
	t.Cleanup(rc.Close)
	s := start(t, e, Config{Sinks: []Target{sinkAt(t, rc.URL)}})
	eventually(t, "it fails", func() bool { return s.Sinks()[0].Failures > 0 })
	if st := s.Sinks()[0]; st.Acknowledged != 0 || !strings.Contains(st.LastError, "certificate") {
		t.Errorf("%+v", st)
	}
	_ = stop(s)
	roots := x509.NewCertPool()
	roots.AddCert(rc.Certificate())
	start(t, e, Config{Sinks: []Target{sinkAt(t, rc.URL)}, Roots: roots})
	rc.wantLog(t, e)
}

func TestPacesGrowToABoundAndHeedTheReceiver(t *testing.T) {
	p := pace{first: firstRetry, most: mostRetry}
	for n := 1; n < 100; n++ {
		d := p.wait(n, errNone)
		if want := min(firstRetry<<min(n-1, 20), mostRetry); d < want/2 || d > want {
			t.Errorf("%d: %s, want about %s", n, d, want)
		}
	}
	for after, want := range map[string]time.Duration{"90": 90 * time.Second, "86400": mostAsked, "-5": 0, "Wed, 21 Oct 2026 07:28:00 GMT": 0} {
		err := judge(503, http.Header{"Retry-After": {after}})
		if d := p.wait(1, err); d < want || want > 0 && d > want {
			t.Errorf("Retry-After %s: %s", after, d)
		}
	}
	for status, permanent := range map[int]bool{400: true, 401: true, 408: false, 413: true, 429: false, 500: false, 503: false, 302: true, 100: false} {
		var r *refusal
		if err := judge(status, nil); !errors.As(err, &r) || r.permanent != permanent || !strings.Contains(r.Error(), strconv.Itoa(status)) {
			t.Errorf("%d: %v", status, err)
		}
	}
}
