package report

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// hostile is what an agent might put wherever it can.
func hostile() []string {
	return []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</code></td></table><h1>VERIFIED`, `' onmouseover='alert(1)`,
		"a|b|c", "`code` ``` ~~~", "**bold** _under_ [link](https://evil.example) ![i](https://evil.example/x.png)", "https://evil.example/phish",
		"line\nbreak\r\n# heading\n| a | b |", "tab\there\x00\x07\x1b[2J\x7f", "\u202egnp.exe \u2066isolate\u2069 \u200fmark", "аpi.openai.com", "zalgo\u0301\u0302\u0303",
		"\u2028\u2029\u0085\ufeff", "{{.Title}} {{template \"grid\"}} ${x} #{x}", "&lt;b&gt; &amp; &#x3c;", "</style><style>*{display:none}", "<!-- ", "]]>", "<svg/onload=alert(1)>",
		"javascript:alert(1)", " leading and trailing ", `back\slash \u202e \x60`, strings.Repeat("A", 3000) + ".evil.example", "…", "–", "\U0001f600",
		"@octocat #1 :smile:", "<https://evil.example>", "- [ ] task", "1. list", "> quote", "===", "---", "$$x$$",
	}
}

// hostileLog has each text in every member that a report shows.
func hostileLog(t *testing.T) *logBuilder {
	l := newLog(t)
	for i, s := range hostile() {
		l.session, l.agent, l.user = "sess_"+s, s, s
		l.add("engine_start", members{"engine": members{"version": s, "command": s}, "policy_revision": s, "torn": members{"bytes": 1, "file": s, "sha256": s}})
		who := members{"namespace": s, "service_account": s, "claimed": s + "!", "pod": s}
		if i%2 == 0 {
			who = members{"claimed": s}
		}
		all := members{"agent": who, "host": s, "method": s, "path": s, "policy": s, "policy_revision": s, "rule": s, "sni": s, "query_keys": []string{s}, "detail": s}
		l.request(all, members{"request_bytes": 10 + i, "response_bytes": 20 + i, "upstream_addr": s, "truncated": true})
		l.request(with(all, members{"observed": true, "reason": s}), members{"event": "egress_error", "reason": s})
		l.request(with(all, members{"scheme": "tunnel"}), members{"event": "egress_denied", "reason": s})
		l.refuse(with(all, members{"reason": s}))
		l.refuse(with(all, members{"reason": "rate_limited", "count": 1 << 62, "first": s, "last": s}))
		l.add("egress_allowed", with(all, members{"phase": "decision", "id": s, "attempt": 1}))
		l.add("engine_heartbeat", members{"reason": "audit_recovered", "detail": s, "first": s, "last": s, "count": -5, "clock_jump_ms": 1})
		l.add(s, members{"host": s, "request_bytes": -1 << 62})
	}
	return l
}

func TestHostileTextStaysTextInMarkdown(t *testing.T) {
	md := markdownOf(t, gather(t, Options{Files: []string{hostileLog(t).file()}, Tool: "<b>", Policy: &Policy{File: "<b>|`", Revision: "|"}}))
	for i, r := range md {
		if r == '\n' || r >= ' ' && r <= '~' || strings.ContainsRune("…–“”█", r) {
			continue
		}
		t.Fatalf("%U at %d: %q", r, i, md[max(0, i-40):i+10])
	}
	fenced := false
	columns := 0
	for n, line := range strings.Split(md, "\n") {
		if strings.HasPrefix(line, "```") {
			if fenced = !fenced; fenced && line != "```text" || !fenced && line != "```" {
				t.Errorf("line %d: a fence that is not ours: %q", n+1, line)
			}
			continue
		}
		if fenced {
			if strings.ContainsAny(line, "`<>&|") {
				t.Errorf("line %d: %q in a block", n+1, line)
			}
			continue
		}
		ours, spans := outside(line)
		if strings.ContainsAny(strings.ReplaceAll(ours, `\<`, ""), "<") || strings.Contains(ours, "evil.example") || strings.Contains(ours, "alert(1)") {
			t.Errorf("line %d: text of the log outside a code span: %q", n+1, line)
		}
		for _, s := range spans {
			if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' || strings.ContainsAny(s, "|<>&") {
				t.Errorf("line %d: code span %q", n+1, s)
			}
		}
		if pipes := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); strings.HasPrefix(line, "|") {
			if columns != 0 && pipes != columns {
				t.Errorf("line %d: %d pipes in a table of %d: %q", n+1, pipes, columns, line)
			}
			columns = pipes
		} else if columns = 0; pipes > 0 {
			t.Errorf("line %d: a pipe outside a table: %q", n+1, line)
		}
	}
	if fenced {
		t.Error("a block does not end")
	}
	has(t, md, `\u202e`, `\u0430pi.openai.com`, `\x1b[2J`, `\x60`, `\x7c`, `\x3cscript\x3e`, `\x20leading and trailing\x20`, `back\\slash \\u202e`)
}

// outside returns what of a line is in no code span, and the spans.
func outside(line string) (ours string, spans []string) {
	parts := strings.Split(line, "`")
	for i, p := range parts {
		if i%2 == 0 {
			ours += p
		} else {
			spans = append(spans, p)
		}
	}
	return ours, spans
}

func TestHostileTextStaysTextInHTML(t *testing.T) {
	page := htmlOf(t, gather(t, Options{Files: []string{hostileLog(t).file()}, Tool: "<b>", Policy: &Policy{File: "</title><b>", Revision: "\""}}))
	elements(t, page) // its markup closes, and has no attribute that it should not have
	for i, r := range page {
		if r == '\n' || r >= ' ' && r <= '~' || strings.ContainsRune("…–“”", r) {
			continue
		}
		t.Fatalf("%U at %d: %q", r, i, page[max(0, i-40):i+10])
	}
	hasNot(t, page, "<script", "<img", "<b>", "</style><", "<!--", "<svg/", `onerror=alert(1)>`)
	has(t, page, `\u202e`, `\u0430pi.openai.com`, `&lt;script&gt;alert(1)&lt;/script&gt;`)
	for name := range elements(t, page) {
		if strings.IndexFunc(name, func(r rune) bool { return !unicode.IsLower(r) && !unicode.IsDigit(r) }) >= 0 {
			t.Errorf("element %q", name)
		}
	}
}

func TestDifferentTextsStayDifferent(t *testing.T) {
	shown := map[string]string{}
	for _, s := range append(hostile(), `\n`, "\n", `\\n`, `"`, `\"`, "\xff", "\ufffd", `\xff`) {
		v := visible(keep(s))
		if was, ok := shown[v]; ok {
			t.Errorf("%q and %q are both shown as %q", was, s, v)
		}
		shown[v] = s
	}
	a, b := keep(strings.Repeat("a", 900)+"x"+strings.Repeat("a", 900)), keep(strings.Repeat("a", 1801))
	if a == b || len(a) > maxText || !strings.HasSuffix(a, "aaa") {
		t.Errorf("%q, %q", a, b)
	}
	if got := shorten("paypal.com."+strings.Repeat("a", 200)+".evil.example", 40); !strings.HasPrefix(got, "paypal.com") || !strings.HasSuffix(got, "evil.example") {
		t.Errorf("the end of a host is not shown: %s", got)
	}
}

// fill adds n entries that fn makes.
func fill(c *collector, n int, fn func(i int, e *audit.Entry)) {
	for i := range n {
		e := audit.Entry{
			Event: "egress_allowed", Phase: "decision", Session: "s", AgentIdentity: "a", Host: "h", Rule: "r", Attempt: 1, Seq: uint64(i + 1), Line: int64(i + 1),
			Time: time.Unix(1e9, 0),
		}
		fn(i, &e)
		c.add(&e, 0)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	for name, row := range map[string]struct {
		n    int
		fn   func(i int, e *audit.Entry)
		size func(c *collector) int
		max  int
		says string
	}{
		"agents":    {maxAgents + 5, func(i int, e *audit.Entry) { e.AgentIdentity = strconv.Itoa(i) }, func(c *collector) int { return len(c.agents.rows) }, maxAgents, "over 1,000"},
		"hosts":     {maxPairs + 5, func(i int, e *audit.Entry) { e.Host = strconv.Itoa(i) }, func(c *collector) int { return len(c.pairs.rows) }, maxPairs, "5 requests of others"},
		"rules":     {maxPairs + 5, func(i int, e *audit.Entry) { e.Rule = strconv.Itoa(i) }, func(c *collector) int { return len(c.rules.rows) }, maxPairs, "5 decisions of others"},
		"sessions":  {maxSessions + 5, func(i int, e *audit.Entry) { e.Session = strconv.Itoa(i) }, func(c *collector) int { return len(c.sessions) }, maxSessions, "5 more sessions are counted"},
		"revisions": {maxRevisions + 5, func(i int, e *audit.Entry) { e.PolicyRevision = strconv.Itoa(i) }, func(c *collector) int { return len(c.revisions.rows) }, maxRevisions, "5 decisions were made under more revisions"},
		"events":    {maxEvents + 5, func(i int, e *audit.Entry) { e.Event = strconv.Itoa(i) }, func(c *collector) int { return len(c.events.rows) }, maxEvents, "| Other events | 5 |"},
		"reasons": {maxReasons + 5, func(i int, e *audit.Entry) { e.Event, e.Reason = "egress_denied", strconv.Itoa(i) },
			func(c *collector) int { return len(c.denials.rows) }, maxReasons, "5 denials of others"},
		"errors": {maxReasons + 5, func(i int, e *audit.Entry) { e.Event, e.Reason = "egress_error", strconv.Itoa(i) },
			func(c *collector) int { return len(c.errors.rows) }, maxReasons, "5 errors of others"},
		"pending": {maxPending + 5, func(i int, e *audit.Entry) { e.ID = strconv.Itoa(i) }, func(c *collector) int { return len(c.pending) }, maxPending, "5 requests were not followed"},
		"paths": {maxPaths + 5, func(i int, e *audit.Entry) { e.Path = strconv.Itoa(i) },
			func(c *collector) int { return maxAllPaths - c.pathRoom }, maxPaths, "at least 1,000"},
		"jumps": {maxListed + 5, func(i int, e *audit.Entry) { e.ClockJumpMS = -86_400_000 }, func(c *collector) int { return len(c.jumps.items) }, maxListed, "And 5 more."},
		"top":   {maxTop + 5, func(i int, e *audit.Entry) { e.Phase, e.DurationMS = "complete", int64(i%7+1) }, func(c *collector) int { return len(c.slow.items) }, maxTop, "7 ms"},
		"claims": {maxClaims + 5, func(i int, e *audit.Entry) { e.Claimed = strconv.Itoa(i) },
			func(c *collector) int { return len(c.agents.rows[agentKey{"a", false}].claims) }, maxClaims, "`4`, …"},
		"rows": {maxRows + 5, func(i int, e *audit.Entry) { e.Host = strconv.Itoa(i) }, func(c *collector) int { return maxRows }, maxRows, "5 more rows left out, with 5 requests and 0 B sent."},
	} {
		c := newCollector(time.Time{}, time.Time{})
		fill(c, row.n, row.fn)
		if got := row.size(c); got != row.max {
			t.Errorf("%s: %d are kept, want %d", name, got, row.max)
		}
		c.settle()
		r := &Report{o: Options{Files: []string{"f"}}, c: c}
		md := markdownOf(t, r)
		if !strings.Contains(md, row.says) {
			t.Errorf("%s: no %q in\n%.6000s", name, row.says, md)
		}
		if len(md) > 64<<10 {
			t.Errorf("%s: %d bytes of Markdown", name, len(md))
		}
		htmlOf(t, r)
	}
}

func TestTheSlowestComeFirst(t *testing.T) {
	var slow top
	for i, v := range []int64{3, 0, 9, 1, 9, -4, 7, 2, 8, 6, 5, 4, 10, 11} {
		slow.add(v, func() topItem { return topItem{at: ref{seq: uint64(i)}} })
	}
	var got []string
	for _, it := range slow.items {
		got = append(got, fmt.Sprintf("%d@%d", it.value, it.at.seq))
	}
	if want := "11@13 10@12 9@2 9@4 8@8 7@6 6@9 5@10 4@11 3@0"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestBarsGrowWiderAndLoseNothing(t *testing.T) {
	var line timeline
	var want int64
	at := time.Date(2026, 1, 31, 23, 59, 58, 0, time.UTC)
	for i, step := range []time.Duration{0, time.Second, -5 * time.Second, time.Minute, time.Hour, 9 * time.Hour, 24 * time.Hour, 400 * time.Hour, 30000 * time.Hour, -900000 * time.Hour, 2000000 * time.Hour} {
		at = at.Add(step)
		line.add(at, verdict(i%int(verdicts)), int64(i+1))
		want += int64(i + 1)
		var got int64
		for key, row := range line.rows {
			got += sum(row)
			if key < line.min || key > line.max {
				t.Errorf("bar %d is outside of %d to %d", key, line.min, line.max)
			}
		}
		if got != want || line.max-line.min >= maxBuckets {
			t.Errorf("after %v: %d requests in bars %d to %d of %d s, want %d", step, got, line.min, line.max, line.width, want)
		}
	}
	width := int64(1)
	var units []string
	for range 14 {
		units = append(units, (&timeline{width: width}).unit())
		width *= widerBy(width)
	}
	if got, want := strings.Join(units, ", "), "1 second, 5 seconds, 15 seconds, 1 minute, 5 minutes, 15 minutes, 1 hour, 3 hours, 6 hours, 12 hours, 1 day, 1 week, 4 weeks, 16 weeks"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	coarse := line.coarse(5)
	var got int64
	for _, row := range coarse.rows {
		got += sum(row)
	}
	if got != want || coarse.max-coarse.min >= 5 {
		t.Errorf("coarse: %d, want %d", got, want)
	}
	line.add(time.Time{}, allowed, 3)
	if line.untimed != 3 {
		t.Errorf("%d requests without a time", line.untimed)
	}
}

func TestPlotsOfAnyLength(t *testing.T) {
	for _, span := range []time.Duration{time.Second, 40 * time.Second, time.Hour, 50 * time.Hour, 90 * 24 * time.Hour, 9000 * 24 * time.Hour} {
		var line timeline
		for i := range 40 {
			line.add(time.Date(2026, 5, 15, 9, 0, 0, 0, time.UTC).Add(span*time.Duration(i)/40), verdict(i%4), int64(i))
		}
		v := (&stack{line}).view()
		if len(v.Columns) == 0 || len(v.Ticks) == 0 || len(v.Ticks) > 5 {
			t.Errorf("%v: %d columns, %d ticks", span, len(v.Columns), len(v.Ticks))
		}
	}
	for n, want := range map[int64]int64{0: 1, 1: 1, 3: 4, 5: 5, 6: 10, 99: 100, 101: 200, 401: 500, 1 << 62: 1 << 62} {
		if got := nice(n); got != want {
			t.Errorf("nice(%d) = %d, want %d", n, got, want)
		}
	}
	items := make([]bar, 0, 20)
	for i := range 20 {
		items = append(items, bar{run{Text: strconv.Itoa(i)}, int64(i), number(int64(i))})
	}
	b := barsOf("x", items, number)
	if len(b.items) != maxBars || b.items[0].value != 19 || b.items[maxBars-1].label.Text != "8 others" || b.items[maxBars-1].value != 36 {
		t.Errorf("%+v", b.items)
	}
	if barsOf("x", []bar{{}}, number) != nil {
		t.Error("a plot of nothing")
	}
}

func TestNumbersAreReadable(t *testing.T) {
	for got, want := range map[string]string{
		number(0): "0", number(-1234567): "-1,234,567", number(999): "999", number(1000): "1,000",
		size(10239): "10,239 B", size(10240): "10.0 KiB", size(1 << 20): "1.00 MiB", size(300 << 30): "300 GiB", size(1 << 62): "4.00 EiB",
		elapsed(9999): "9,999 ms", elapsed(-90_000): "-1m30s", elapsed(3_600_000): "1h0m0s",
		plural(1, "entry"): "1 entry", plural(2, "entry"): "2 entries", plural(1000, "rule"): "1,000 rules", when(time.Time{}): "–",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if plus(1<<62, 1<<62) != 1<<63-1 || plus(5, -3) != 5 {
		t.Error("sums of bytes overflow")
	}
}

func TestInsideIsTheNetworkAroundTheMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"169.254.169.254": true, "10.0.0.1": true, "[::1]": true, "127.0.0.1": true, "100.100.100.200": true, "168.63.129.16": true, "fd00:ec2::254": true,
		"::ffff:10.0.0.1": true, "METADATA.google.internal.": true, "x.localhost": true, "8.8.8.8": false, "api.openai.com": false, "10.0.0.1.evil.example": false, "": false,
	} {
		if got := insideHost(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
	if !insideUpstream("[fe80::1]:443") || insideUpstream("8.8.8.8:53") || insideUpstream("x") || insideAddr(netip.MustParseAddr("2606:4700::1")) {
		t.Error("upstream addresses")
	}
}

// TestEveryReasonIsExplained keeps the glossary as complete as the metrics'
// list of reasons, which a test there keeps as complete as the engine's.
func TestEveryReasonIsExplained(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../metrics/words.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "reasonWords" {
			return true
		}
		for _, e := range spec.Values[0].(*ast.CompositeLit).Elts {
			word, err := strconv.Unquote(e.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, word)
		}
		return false
	})
	if len(words) < 50 {
		t.Fatalf("only %d reasons found", len(words))
	}
	g := newGlossary()
	for _, w := range words {
		if _, ok := g[w]; !ok {
			t.Errorf("reason %q is not explained", w)
		}
	}
	for _, m := range g {
		if m.group.String() == "other" {
			t.Errorf("%q has no group", m.text)
		}
	}
	kinds := slices.Sorted(maps.Keys(g))
	if g.of("no such reason").String() != "other" || len(kinds) != len(g) {
		t.Error("an unknown reason has a group")
	}
}
