package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

var update = flag.Bool("update", false, "write the golden files anew")

// bot is an agent that Kubernetes vouches for.
func bot() members {
	return members{"agent": members{"namespace": "support", "service_account": "bot", "pod": "bot-1"}, "policy": "support", "policy_revision": "sha256:0123456789ab"}
}

// smallLog has one of everything.
func smallLog(t *testing.T) *logBuilder {
	l := newLog(t)
	l.start("sess_1778838131123_0123456789abcdef", "sha256:0123456789ab")
	l.agent = "support/bot"
	chat := with(bot(), members{"host": "api.openai.com", "method": "POST", "path": "/v1/chat/completions", "rule": "chat"})
	l.user = "alice@example.com"
	l.request(chat, members{"duration_ms": 1834, "request_bytes": 812, "response_bytes": 20480, "upstream_addr": "104.18.6.192:443"})
	l.user = ""
	l.at = l.at.Add(time.Minute)
	l.request(with(chat, members{"path": "/v1/files"}), members{"event": "egress_error", "reason": "upstream_timeout", "status_code": 504, "duration_ms": 60000, "truncated": true})
	l.at = l.at.Add(time.Minute)
	l.request(with(bot(), members{"host": "wiki.example", "method": "GET", "path": "/", "rule": "wiki"}), members{"event": "egress_denied", "reason": "address_denied", "status_code": 403})
	l.request(with(bot(), members{"host": "db.internal.example", "port": 8443, "method": "GET", "path": "/", "rule": "db"}), members{"upstream_addr": "10.1.2.3:8443"})
	l.request(with(bot(), members{"host": "bank.example", "method": "CONNECT", "scheme": "tunnel", "mitm": false, "rule": "pinned"}), members{"request_bytes": 15 << 20, "response_bytes": 4000})
	l.refuse(with(bot(), members{"host": "api.openai.com", "method": "DELETE", "path": "/v1/files", "reason": "method_not_allowed"}))
	l.refuse(with(bot(), members{"host": "169.254.169.254", "port": 80, "scheme": "http", "method": "GET", "path": "/latest", "reason": "not_in_allowlist"}))
	l.refuse(with(bot(), members{"host": "10.1.2.3", "method": "PUT", "path": "/", "reason": "path_not_allowed"}))
	l.refuse(with(bot(), members{"host": "api.openai.com", "method": "POST", "path": "/v1/chat/completions", "reason": "rate_limited", "rule": "chat", "status_code": 429}))
	l.refuse(with(bot(), members{"host": "api.openai.com", "sni": "evil.example", "reason": "name_mismatch"}))
	delete(chat, "rule")
	l.at = l.at.Add(time.Minute)
	l.agent = "root"
	claims := with(chat, members{"agent": members{"namespace": "support", "service_account": "bot", "claimed": "root"}, "observed": true, "reason": "method_not_allowed", "method": "PUT"})
	l.request(claims, members{"request_bytes": 99})
	l.agent = "aegrail-engine"
	l.refuse(members{"reason": "unknown_principal", "policy_revision": "sha256:0123456789ab", "client_addr": "10.0.0.9:4000", "kind": "transparent"})
	l.add("egress_denied", with(bot(), members{"phase": "decision", "reason": "not_in_allowlist", "count": 40, "first": "2026-05-15T09:44:00.000Z", "last": "2026-05-15T09:45:00.000Z"}))
	l.add("engine_heartbeat", members{"reason": "audit_recovered", "detail": "no space left on device", "count": 2, "first": "2026-05-15T09:44:00.000Z", "last": "2026-05-15T09:45:00.000Z", "clock_jump_ms": -7200000})
	l.agent = "support/bot"
	l.add("egress_allowed", with(bot(), members{"phase": "decision", "attempt": 1, "id": "00000000000000ff", "host": "api.openai.com", "method": "POST", "path": "/v1/lost", "rule": "chat", "scheme": "https", "port": 443}))
	l.add("engine_heartbeat", members{"reason": "checkpoint"})
	l.add("engine_heartbeat", members{"reason": "retention", "count": 1, "detail": "audit.log.000000000001"})
	l.at = l.at.Add(time.Hour)
	l.session, l.agent = "sess_1778841911123_fedcba9876543210", "aegrail-engine"
	l.add("engine_start", members{"engine": members{"version": "v0.4.0", "command": "serve"}, "resumed": true, "policy_revision": "sha256:fedcba987654", "torn": members{"bytes": 80, "file": "audit.log.torn-1", "sha256": strings.Repeat("a", 64)}})
	l.agent = "laptop"
	l.request(members{"host": "pypi.org", "method": "GET", "path": "/simple/x/", "policy": "p", "rule": "allowlist", "policy_revision": "sha256:fedcba987654"}, members{"response_bytes": 4096})
	l.agent = "aegrail-engine"
	l.add("engine_shutdown", nil)
	return l
}

// smallPolicy has a rule that smallLog names and two that it does not.
func smallPolicy(t *testing.T) *Policy {
	docs, err := v1alpha1.Parse("support.yaml", []byte(`apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: support}
spec:
  agents: {namespaces: [support]}
  allowlist: [pypi.org]
  rules:
    - {name: chat, hosts: [api.openai.com], methods: [POST]}
    - {name: no-deletes, action: deny, hosts: ["*"], methods: [DELETE]}
`))
	if err != nil {
		t.Fatal(err)
	}
	return &Policy{File: "support.yaml", Revision: "sha256:0123456789ab", Docs: docs}
}

func smallReport(t *testing.T) *Report {
	file := smallLog(t).file()
	verified(t, file)
	t.Chdir(filepath.Dir(file))
	return gather(t, Options{
		Files: []string{"audit.log"}, Policy: smallPolicy(t), Tool: "aegrail-engine v0.4.0", Now: time.Date(2026, 5, 16, 8, 0, 0, 0, time.UTC),
	})
}

func TestTheReportOfASmallLog(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	r := smallReport(t)
	for name, got := range map[string]string{"small.md": markdownOf(t, r), "small.html": htmlOf(t, r)} {
		golden := filepath.Join(dir, name)
		if *update {
			write(t, golden, []byte(got))
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs from what it was; look at it and run go test -update:\n%s", name, got)
		}
	}
	if again := markdownOf(t, r); again != markdownOf(t, smallReport(t)) {
		t.Error("the same log gives another report")
	}
}

func TestEachRequestCountsOnceByWhatBecameOfIt(t *testing.T) {
	c := smallReport(t).c
	want := [verdicts]int64{allowed: 5, observed: 1, denied: 47, failed: 1}
	if c.total != want {
		t.Errorf("%v, want %v", c.total, want)
	}
	var line [verdicts]int64
	for _, row := range c.timeline.rows {
		for v, n := range row {
			line[v] += n
		}
	}
	if line != want {
		t.Errorf("over time %v, want %v", line, want)
	}
	var agents [verdicts]int64
	for _, a := range c.agents.rows {
		for v, n := range a.by {
			agents[v] += n
		}
	}
	if agents != want {
		t.Errorf("by agent %v, want %v", agents, want)
	}
	if c.open.n != 1 || c.unasked != 0 || c.jumps.n != 1 || c.troubles.n != 2 || c.truncated.n != 1 {
		t.Errorf("open %d, unasked %d, jumps %d, troubles %d, truncated %d", c.open.n, c.unasked, c.jumps.n, c.troubles.n, c.truncated.n)
	}
}

func TestTimeBoundsWhatIsReportedAndNotWhatIsVerified(t *testing.T) {
	file := smallLog(t).file()
	at := time.Date(2026, 5, 15, 10, 0, 0, 0, time.UTC)
	after := gather(t, Options{Files: []string{file}, Since: at})
	has(t, markdownOf(t, after), "CONSISTENT: 28 records", "4 records from 2026-05-15 10:00:00Z on", "| Requests |", "| 1 | 1 | 0 | 0 | 0 |", "pypi.org")
	hasNot(t, markdownOf(t, after), "api.openai.com", "sess_1778838131123")
	before := gather(t, Options{Files: []string{file}, Until: at})
	has(t, markdownOf(t, before), "24 records before 2026-05-15 10:00:00Z", "api.openai.com")
	hasNot(t, markdownOf(t, before), "pypi.org")
	both := gather(t, Options{Files: []string{file}, Since: at, Until: at.Add(time.Hour)})
	has(t, markdownOf(t, both), "from 2026-05-15 10:00:00Z on and before 2026-05-15 11:00:00Z")

	// A request that was decided before and ended after is in the first span,
	// and what it sent in the second.
	l := newLog(t)
	l.at = at.Add(-20 * time.Millisecond)
	l.request(members{"host": "a.test"}, members{"event": "egress_error", "reason": "dial_failed", "request_bytes": 7})
	l.add("egress_allowed", members{"phase": "complete", "id": "0000000000000077"})
	first, second := gather(t, Options{Files: []string{l.file()}, Until: at}), gather(t, Options{Files: []string{l.file()}, Since: at})
	if first.c.total[failed] != 1 || first.c.open.n != 0 || first.c.unasked != 0 {
		t.Errorf("before: %+v", first.c.total)
	}
	if second.c.total != [verdicts]int64{} || second.c.errors.rows["dial_failed"].n != 1 || second.c.unasked != 1 {
		t.Errorf("after: %+v", second.c.total)
	}
	has(t, markdownOf(t, second), "1 completion without a decision before")
}

func TestTheTopSaysHowFarTheLogIsProven(t *testing.T) {
	const unauthenticated = "UNAUTHENTICATED"
	for what, row := range map[string]struct {
		p       audit.Report
		has, no []string
	}{
		"no checkpoints":    {audit.Report{Records: 9}, []string{"> **CONSISTENT: 9 records, each one continues the one before", unauthenticated, "no signature was checked"}, []string{"ANCHORED", "INCOMPLETE"}},
		"no key":            {audit.Report{Records: 9, Checkpoints: 2}, []string{unauthenticated, "the log has 2 checkpoints"}, []string{"NOT SIGNED"}},
		"all signed":        {audit.Report{Records: 9, Authenticated: true, Covered: 8, CheckpointSize: 8, CoveredTime: "2026"}, []string{"AUTHENTICATED: a key that was given signed the records 1 to 8, at `2026`"}, []string{unauthenticated, "NOT SIGNED"}},
		"signed but an end": {audit.Report{Records: 9, Authenticated: true, Covered: 5, CheckpointSize: 7}, []string{"NOT SIGNED YET: 4 records"}, []string{unauthenticated}},
		"signed to its end": {audit.Report{Records: 9, Authenticated: true, Covered: 9}, nil, []string{unauthenticated, "NOT SIGNED"}},
		"signed as found": {
			audit.Report{Records: 9, Authenticated: true, Covered: 8, CheckpointSize: 8, Found: 3, FoundFirst: 1, FoundLast: 2},
			[]string{"SIGNED AS FOUND: 3 records, the first of them 1 to 2,"}, []string{unauthenticated, "NOT SIGNED"},
		},
		"later segments": {
			audit.Report{Records: 9, Before: 90, Authenticated: true, Covered: 98, CheckpointSize: 98},
			[]string{"INCOMPLETE: the records 1 to 90 are in earlier files"},
			[]string{unauthenticated, "NOT SIGNED"},
		},
		"an anchor": {
			audit.Report{Records: 9, Anchored: 3, AnchorSize: 7, AnchorTime: "2026", AnchorForeign: 1},
			[]string{"> **VERIFIED: 9", "ANCHORED: 3 checkpoints", "records 1 to 7, at `2026`", "1 checkpoint of the anchor were left out", unauthenticated, "NOT ANCHORED YET: 2 records"},
			[]string{"could have signed another log"},
		},
		"an anchor to its end": {audit.Report{Records: 9, Anchored: 3, AnchorSize: 8, CheckpointSize: 8}, []string{unauthenticated}, []string{"NOT ANCHORED"}},
	} {
		r := &Report{o: Options{Files: []string{"f"}}, c: newCollector(time.Time{}, time.Time{}), proof: row.p}
		md := markdownOf(t, r)
		top, _, _ := strings.Cut(md, "\n## ")
		t.Log(what)
		has(t, top, row.has...)
		hasNot(t, top, row.no...)
		if n := strings.Count(htmlOf(t, r), `"banner warn"`); n != len(r.cautions()) {
			t.Errorf("%s: %d cautions in the page", what, n)
		}
	}
}

// TestAnEndThatWasCutWhileTheEngineRanIsReported has the record of an engine that
// had to open its file anew.
func TestAnEndThatWasCutWhileTheEngineRanIsReported(t *testing.T) {
	l := smallLog(t)
	l.add("engine_heartbeat", members{"reason": "audit_recovered", "detail": "input/output error", "torn": members{"bytes": 1, "file": "audit.log.torn-2", "sha256": strings.Repeat("a", 64)}})
	has(t, markdownOf(t, gather(t, Options{Files: []string{l.file()}})), "1 byte of an unfinished record were cut off the file and kept in audit.log.torn-2: input/output error")
}

func TestADamagedLogIsRefused(t *testing.T) {
	good := smallLog(t).out.Bytes()
	lines := bytes.SplitAfter(good, []byte("\n"))
	for what, content := range map[string][]byte{
		"changed":   bytes.Replace(good, []byte("api.openai.com"), []byte("api.openai.org"), 1),
		"removed":   bytes.Join(slices.Delete(slices.Clone(lines), 4, 5), nil),
		"malformed": bytes.Join(slices.Insert(slices.Clone(lines), 4, []byte("{}\n")), nil),
		"torn":      good[:len(good)-9],
	} {
		file := write(t, filepath.Join(t.TempDir(), "audit.log"), content)
		_, err := Gather(Options{Files: []string{file}})
		var damage *audit.Damage
		if !errors.As(err, &damage) {
			t.Errorf("%s: %v, want damage", what, err)
			continue
		}
		r := gather(t, Options{Files: []string{file}, Unverified: true})
		md, page := markdownOf(t, r), htmlOf(t, r)
		has(t, md, "# NOT VERIFIED: the log is damaged", "The damage: ", "before it verify")
		has(t, page, `<p class="headline">NOT VERIFIED: the log is damaged</p>`, `class="banner bad"`)
		hasNot(t, md, "**VERIFIED", "UNAUTHENTICATED")
		if what == "malformed" {
			has(t, md, "Not read from here on")
		}
	}
	r := gather(t, Options{Files: []string{smallLog(t).file()}, Unverified: true})
	has(t, markdownOf(t, r), "> **CONSISTENT: 28 records")
}

// TestWhatIsReportedIsWhatWasVerified has a log that can be read once: whoever
// could change it between two readings would have the second reported.
func TestWhatIsReportedIsWhatWasVerified(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "audit.log")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(pipe, smallLog(t).out.Bytes(), 0o600) }()
	r := gather(t, Options{Files: []string{pipe}})
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if r.c.records != 28 || r.proof.Records != 28 {
		t.Errorf("%d records, %d verified", r.c.records, r.proof.Records)
	}
}

func TestWhatCannotBeReportedIsRefused(t *testing.T) {
	now := time.Now()
	for want, o := range map[string]Options{
		"no file given":         {},
		"cannot be read twice":  {Files: []string{"-"}},
		"nothing is both since": {Files: []string{"x"}, Since: now, Until: now},
		"no such file":          {Files: []string{filepath.Join(t.TempDir(), "none")}, Unverified: true},
	} {
		if _, err := Gather(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAnEmptyLogHasAReport(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "audit.log"), nil)
	r := gather(t, Options{Files: []string{file}})
	for _, text := range []string{markdownOf(t, r), htmlOf(t, r)} {
		has(t, text, "VERIFIED: the log is empty", "Nothing was denied", "No request is in the log", "No limit was hit", "No request failed", "No record names a rule",
			"No request was completed", "no record")
		hasNot(t, text, "UNAUTHENTICATED", "<svg class=\"bars\"")
	}
}

func TestTheLibrarysLogHasAReport(t *testing.T) {
	r := gather(t, Options{Files: []string{filepath.Join("..", "audit", "testdata", "stock.jsonl")}})
	has(t, markdownOf(t, r), "| Event `llm_call` | ", "no engine", "No record names one.", "`sess_test_1`")

	l := newLog(t)
	l.noSeq, l.session, l.agent = true, "sess_test_1", "egress-proxy/v1"
	l.add("egress_denied", members{"host": "blocked.example", "reason": "not_in_allowlist"})
	l.add("egress_allowed", members{"host": "api.example"})
	l.add("egress_error", members{"host": "api.example", "reason": "boom"})
	r = gather(t, Options{Files: []string{l.file()}})
	md := markdownOf(t, r)
	has(t, md, "| `egress-proxy/v1` \\* | `blocked.example` | `not_in_allowlist` | 1 | 2026-05-15 09:42:11Z | 2026-05-15 09:42:11Z | line 1 |",
		"| 3 | 1 | 0 | 1 | 1 | 1 | 1 | 0 B | 0 B |", "| `boom` | other |", "line 3")
	if r.c.open.n != 0 {
		t.Errorf("%d requests of the library are without a completion", r.c.open.n)
	}

	// In several files a line alone says too little.
	two := l.file()
	l.out.Reset()
	l.add("egress_denied", members{"host": "other.example", "reason": "not_in_allowlist"})
	r = gather(t, Options{Files: []string{two, l.file()}})
	has(t, markdownOf(t, r), "`audit.log` line 1")
}

func TestASessionMayHaveBegunInAnEarlierFile(t *testing.T) {
	r := &Report{o: Options{Files: []string{"audit.log"}, Since: time.Unix(1, 0)}, proof: audit.Report{Records: 3, LastSeq: 10}, c: newCollector(time.Unix(1, 0), time.Time{})}
	for _, e := range []audit.Entry{
		{Event: "egress_allowed", Phase: "complete", ID: "1", Session: "s", Seq: 7, Time: time.Unix(2, 0), Path: "/long", PathLen: 9000, Method: "GET", DurationMS: 5},
		{Event: "egress_allowed", Phase: "decision", Attempt: 2, ID: "1", Session: "s", Seq: 8, Time: time.Unix(2, 0)},
		{Event: "egress_allowed", Session: "s", Seq: 9}, // no time
		{Event: "engine_start", Session: "t", Seq: 10, Raw: []byte(`{"payload":{"engine":1}}`), Time: time.Unix(2, 0)},
	} {
		r.c.add(&e, 0)
	}
	r.c.settle()
	md := markdownOf(t, r)
	has(t, md, "| `s` | began before this log |", "| `t` | of unknown version |", "1 completion without a decision before", "1 record whose time cannot be read",
		"`GET /long...`", "killed: no engine")
	if r.c.total != [verdicts]int64{} {
		t.Errorf("a second attempt was counted: %v", r.c.total)
	}

	// Without bounds a record counts whose time cannot be read.
	c := newCollector(time.Time{}, time.Time{})
	c.add(&audit.Entry{Event: "egress_allowed", Session: "s"}, 0)
	c.add(&audit.Entry{Event: "egress_allowed", Session: "s", Time: time.Unix(2, 0)}, 0)
	has(t, markdownOf(t, &Report{o: Options{Files: []string{"audit.log"}}, c: c}), "1 request left out: the time cannot be read")
}

func TestRulesThatWereNeverUsed(t *testing.T) {
	md := markdownOf(t, smallReport(t))
	has(t, md, "Compared with `support.yaml`, revision `sha256:0123456789ab`: 2 of 3 rules are named by no record",
		"| `support` | `allowlist` | allow | `pypi.org` | 6 |", "| `support` | `no-deletes` | deny | `*` | 9 |", "other revisions too")
	hasNot(t, md, "| `support` | `chat` | allow |")
	file := smallLog(t).file()
	p := smallPolicy(t)
	p.Revision = "sha256:aaaaaaaaaaaa"
	p.Docs[0].Source = v1alpha1.Source{}
	md = markdownOf(t, gather(t, Options{Files: []string{file}, Policy: p}))
	has(t, md, "other revisions only", "| `support` | `no-deletes` | deny | `*` | – |")
	has(t, markdownOf(t, gather(t, Options{Files: []string{file}})), "no policy was given")
}

func TestEvidenceNamesItsRecords(t *testing.T) {
	r := smallReport(t)
	found := map[string]int64{}
	for i, c := range r.c.controls {
		found[c.risk+" "+c.title] = r.c.findings[i].n
		if r.c.findings[i].n > 0 && len(r.c.findings[i].refs) == 0 {
			t.Errorf("%s: counted without a record", c.title)
		}
	}
	for title, want := range map[string]int64{
		"ASI02 Calls were let out by a named rule of a named policy revision":        7,
		"ASI02 Calls to hosts that no rule names were refused":                       41,
		"ASI02 Calls beyond the allowed method, path, port or protocol were refused": 2,
		"ASI02 Limits on rate, number and size were enforced":                        1,
		"ASI02 Calls that the policy denies were let pass by observe mode":           1,
		"ASI02 Calls inside tunnels that nobody read":                                1,
		"ASI02 Calls that a deny rule forbids were refused":                          0,
		"ASI03 Egress of an identity that Kubernetes vouches for":                    7,
		"ASI03 Egress on behalf of a user whose token was verified":                  1,
		"ASI03 Egress of an identity that only the engine's flag names":              1,
		"ASI03 Callers whom nobody vouches for were refused":                         1,
		"ASI03 Names that do not agree were refused (domain fronting)":               1,
		"ASI03 Ways to private addresses and metadata services were refused":         2,
		"ASI03 A caller claims another name than the one vouched for":                1,
		"ASI03 Private addresses were reached because a rule names them":             1,
	} {
		if got, ok := found[title]; !ok || got != want {
			t.Errorf("%s: %d (%t), want %d", title, got, ok, want)
		}
	}
}

// elements returns the names of the page's elements, and fails on markup that
// does not close.
func elements(t *testing.T, page string) map[string]bool {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(regexp.MustCompile(`(<meta[^>]*)>`).ReplaceAllString(page, "$1/>")))
	d.Entity = xml.HTMLEntity
	names := map[string]bool{}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatalf("the page: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			names[e.Name.Local] = true
			for _, a := range e.Attr {
				if a.Name.Local == "href" && !strings.HasPrefix(a.Value, "#") || strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" || a.Name.Local == "src" {
					t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
}

func TestThePageNeedsNothingElse(t *testing.T) {
	page := htmlOf(t, smallReport(t))
	names := elements(t, page)
	for _, name := range []string{"script", "img", "link", "iframe", "object", "embed", "form", "base", "image", "use", "foreignObject"} {
		if names[name] {
			t.Errorf("<%s> in the page", name)
		}
	}
	hasNot(t, page, "http:", "https:", "url(", "@import", "javascript:")
	has(t, page, "default-src 'none'", "prefers-color-scheme: dark", "@media print", "<svg")
	for name := range elements(t, htmlOf(t, gather(t, Options{Files: []string{hostileLog(t).file()}}))) {
		if !names[name] {
			t.Errorf("a hostile log has <%s> in its page", name)
		}
	}
}

// BenchmarkGather verifies and counts.
func BenchmarkGather(b *testing.B) {
	l := newLog(b)
	l.start("sess_1778838131123_0123456789abcdef", "sha256:0123456789ab")
	l.agent = "support/bot"
	for i := range 5000 {
		l.request(with(bot(), members{"host": fmt.Sprintf("h%d.example", i%50), "method": "POST", "path": fmt.Sprintf("/v1/%d", i), "rule": "chat"}), members{"request_bytes": i})
	}
	file := filepath.Join(b.TempDir(), "audit.log")
	if err := os.WriteFile(file, l.out.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(l.out.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Gather(Options{Files: []string{file}}); err != nil {
			b.Fatal(err)
		}
	}
}
