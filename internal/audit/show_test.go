package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shownLog has one record of each verdict.
func shownLog(t *testing.T) []byte {
	t.Helper()
	wall, file := newClock(), logFile(t)
	l := open(t, Config{File: file, Now: wall.now})
	mustDecide(t, l, 1)
	check(t, l.Complete(completion(1)))
	wall.add(time.Hour)
	r := denial(&Agent{Namespace: "lab", ServiceAccount: "bot", Claimed: "rob"}, "method_not_allowed")
	r.Rule, r.Port, r.Scheme, r.Method, r.QueryKeys = "no-deletes", 8443, "https", "DELETE", []string{"id", "\x1b[2J"}
	r.Path, r.Detail, r.Observed, r.Count = []byte("/\u202e/\xff"), "not\nthis", true, 4
	r.First, r.Last = wall.now().Add(-time.Minute), wall.now()
	check(t, l.Refuse(r))
	e := completion(9)
	e.Event, e.Reason, e.Attempt, e.Path = EgressError, "upstream_timeout", 2, bytes.Repeat([]byte("/x"), maxPath)
	check(t, l.Complete(e))
	closeLog(t, l)
	return contents(t, file)
}

func show(t *testing.T, log []byte, o ShowOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := Show(&out, bytes.NewReader(log), o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestFiltersSelectRecords(t *testing.T) {
	log := shownLog(t)
	for _, row := range []struct {
		f    Filter
		want int
	}{
		{Filter{}, 6},
		{Filter{Host: "api.example.com"}, 3},
		{Filter{Host: "*.example.com"}, 3},
		{Filter{Host: "*.EXAMPLE.com"}, 3},
		{Filter{Host: "*.api.example.com"}, 0},
		{Filter{Verdict: "allowed"}, 2},
		{Filter{Verdict: "denied"}, 1},
		{Filter{Verdict: "error"}, 1},
		{Filter{Rule: "no-deletes"}, 1},
		{Filter{Reason: "upstream_timeout"}, 1},
		{Filter{Agent: "support/bot"}, 3},
		{Filter{Agent: "rob"}, 1},
		{Filter{Agent: "lab"}, 1},
		{Filter{Agent: "lab/bot"}, 1},
		{Filter{Agent: "bot"}, 0},
		{Filter{Since: newClock().at.Add(time.Minute)}, 3},
		{Filter{Since: newClock().at.Add(time.Minute), Verdict: "allowed"}, 0},
		{Filter{Until: newClock().at.Add(time.Minute)}, 3},
		{Filter{Until: newClock().at}, 0},
		{Filter{Since: newClock().at, Until: newClock().at.Add(time.Nanosecond)}, 3},
		{Filter{FromSeq: 2, ToSeq: 2}, 1},
		{Filter{FromSeq: 2, ToSeq: 4}, 3},
		{Filter{FromSeq: 5}, 2},
		{Filter{ToSeq: 1}, 1},
		{Filter{FromSeq: 7}, 0},
		{Filter{FromSeq: 1, ToSeq: 9, Verdict: "denied"}, 1},
	} {
		if got := strings.Count(show(t, log, ShowOptions{Format: Raw, Filter: row.f}), "\n"); got != row.want {
			t.Errorf("%+v: %d records, want %d", row.f, got, row.want)
		}
	}
	err := Show(&bytes.Buffer{}, bytes.NewReader(log), ShowOptions{Filter: Filter{Verdict: "deny"}})
	wantErr(t, err, "allowed, denied or error")
	err = (&Filter{Since: newClock().at, Until: newClock().at}).Check()
	wantErr(t, err, "the first must be the earlier")
	err = (&Filter{FromSeq: 3, ToSeq: 2}).Check()
	wantErr(t, err, "seq 3-2", "the smaller")
}

func TestARecordIsFoundWithoutReadingOn(t *testing.T) {
	log := append(shownLog(t), "damage behind it\n"...)
	got := show(t, log, ShowOptions{Format: Raw, Filter: Filter{FromSeq: 2, ToSeq: 2}})
	if lines := strings.SplitAfter(string(log), "\n"); got != lines[1] {
		t.Fatalf("got %q, want %q", got, lines[1])
	}
	err := Show(&bytes.Buffer{}, bytes.NewReader(log), ShowOptions{Filter: Filter{FromSeq: 7, ToSeq: 7}})
	wantErr(t, err, "line 7")
	if got := show(t, []byte(record("s", `"host":"x"`, "null")+"\n"), ShowOptions{Filter: Filter{ToSeq: 3}}); got != "" {
		t.Fatalf("a record without seq is between numbers: %q", got)
	}
}

func TestRawIsTheFileAndJSONIsJSON(t *testing.T) {
	log := shownLog(t)
	if got := show(t, log, ShowOptions{Format: Raw}); got != string(log) {
		t.Fatalf("raw differs:\n%s", got)
	}
	rows := strings.Split(strings.TrimSpace(show(t, log, ShowOptions{Format: JSON})), "\n")
	var e Entry
	if err := json.Unmarshal([]byte(rows[2]), &e); err != nil {
		t.Fatal(err)
	}
	if e.Host != "api.example.com" || e.StatusCode != 200 || e.ResponseBytes != 1024 || e.Seq != 3 {
		t.Fatalf("%+v", e)
	}
}

func TestTheTableCannotDriveATerminal(t *testing.T) {
	out := show(t, shownLog(t), ShowOptions{})
	for _, r := range out {
		if r != '\n' && (r < ' ' || r == 0x7f || r == '\u202e' || r == 0xfffd) {
			t.Fatalf("%U in the table:\n%s", r, out)
		}
	}
	for _, want := range []string{
		"POST  https://api.example.com/v1/messages", "status 200", "sent 17B", "received 1024B", "42ms", "allowed/end", "attempt 2",
		"denied", "DELETE  https://evil.example:8443/", "rule no-deletes", "OBSERVED", "times 4  from 2026-05-15T10:41:11.123Z  to 2026-05-15T10:42:11.123Z", `not\nthis`, `\x1b[2J`, "…", "engine_start",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestTheTableSaysWhatBecameOfTheFile has an engine begin behind a torn end.
func TestTheTableSaysWhatBecameOfTheFile(t *testing.T) {
	file := logFile(t)
	c := Config{File: file, Rotate: Rotation{Size: 2 << 10}}
	closeLog(t, open(t, c))
	write(t, file, append(contents(t, file), "{\"agent"...))
	l := open(t, c)
	for id := uint64(1); len(files(t, file)) < 2; id++ {
		requests(t, l, id, 1)
	}
	cut := completion(99)
	cut.Truncated = true
	check(t, l.Complete(cut))
	closeLog(t, l)
	var out string
	for _, name := range files(t, file) {
		out += show(t, contents(t, name), ShowOptions{})
	}
	for _, want := range []string{"resumed  torn end of 7B kept in " + filepath.Base(file) + ".torn-000000000002-", "received 1024B  CUT OFF", "reason segment  continues " + filepath.Base(file) + ".000000000001\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	torn := entries(t, files(t, file)[0])[2]
	if torn.Torn == nil || torn.Torn.Bytes != 7 || len(torn.Torn.SHA256) != 64 || !torn.Resumed {
		t.Errorf("%+v", torn)
	}
}

// TestNoFieldOfAForgedRecordCanDriveATerminal has what the engine never writes.
func TestNoFieldOfAForgedRecordCanDriveATerminal(t *testing.T) {
	log := strings.NewReplacer(`"egress_allowed"`, `"\u001b[2J"`, `"ts":"`, `"ts":"\u001b]0;`).Replace(record("s", `"seq":1`, "null")) + "\n"
	if out := show(t, []byte(log), ShowOptions{}); strings.ContainsRune(out, 0x1b) {
		t.Errorf("%q", out)
	}
	const hostile = "\u009b2J\u202e\x7f\U0001f600"
	e := decoded(t, &Record{Event: EgressDenied, Host: hostile})
	b, err := e.JSON()
	check(t, err)
	e = Entry{}
	if err := json.Unmarshal(b, &e); err != nil || e.Host != hostile || strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestReadStopsWhereItIsTold(t *testing.T) {
	log := shownLog(t)
	stop := errors.New("enough")
	n := 0
	err := Read(bytes.NewReader(log), func(e *Entry) error {
		n++
		if e.Line != int64(n) {
			t.Errorf("line %d is called %d", n, e.Line)
		}
		if n == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 2 {
		t.Fatalf("%v after %d", err, n)
	}
	n = 0
	count := func(*Entry) error { n++; return nil }
	if err := Read(bytes.NewReader(log[:len(log)-5]), count); err != nil || n != 5 {
		t.Fatalf("a line that is being written: %v after %d", err, n)
	}
	err = Read(strings.NewReader("{}\n"), count)
	wantErr(t, err, "line 1", "agent_identity")
	if err := Show(failing{}, bytes.NewReader(log), ShowOptions{}); err == nil {
		t.Fatal("a failed write was not reported")
	}
}

func TestReadTakesWhatIsNotTheEngines(t *testing.T) {
	line := record("s", `"agent":7,"attempt":"x","clock_jump_ms":5,"count":1.5,"host":7,"id":"é","path_len":3,"port":99999,"query_keys":["a",1,"b"],"zz":{"a":[1]}`, "null")
	line = strings.Replace(line, "é", `\u00e9`, 1)
	err := Read(strings.NewReader(line+"\n"), func(e *Entry) error {
		if e.Host != "" || e.Attempt != 0 || e.Port != 0 || e.ID != "é" || len(e.QueryKeys) != 2 || e.ClockJumpMS != 5 || e.Count != 0 {
			t.Errorf("%+v", e)
		}
		return nil
	})
	check(t, err)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
