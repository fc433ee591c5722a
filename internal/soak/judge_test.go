package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// rec makes a record out of "event phase reason revision".
func rec(line string) (r record) {
	f := strings.Fields(line)
	r.Event = f[0]
	r.Payload.Phase, r.Payload.Reason, r.Payload.Revision = f[1], strings.Trim(f[2], "-"), f[3]
	r.Payload.Status, r.Payload.SentSum, r.Payload.GotSum, r.Payload.SentN, r.Payload.GotN = 200, "in", "out", 2, 3
	r.Payload.Attempt = 1
	return r
}

// logOf sorts records as the index does.
func logOf(lines ...string) *told {
	t := new(told)
	for _, l := range lines {
		switch r := rec(l); {
		case r.Payload.Phase == "complete":
			t.ends = append(t.ends, r)
		case r.Event == "egress_allowed":
			t.decisions = append(t.decisions, r)
		default:
			t.denials = append(t.denials, r)
		}
	}
	return t
}

const (
	decided = "egress_allowed decision - open"
	ended   = "egress_allowed complete - open"
	failed  = "egress_error complete upstream open"
	denial  = "egress_denied decision no_rule open"
)

// The log, the origins and the client say, in rows that read as sentences.
func TestTheJudgeSeesWhatIsWrong(t *testing.T) {
	now := time.Now()
	forced := []inForce{{"early", true, now.Add(-time.Hour), now.Add(-time.Minute)}, {"open", true, now.Add(-time.Minute), now}, {"shut", false, now, time.Time{}}}
	good := func() call {
		return call{method: "POST", status: 200, sent: "in", sentN: 2, got: "out", gotN: 3, began: now.Add(-time.Second), ended: now.Add(-time.Millisecond)}
	}
	told403 := func() call { c := good(); c.status, c.reason = 403, "no_rule"; return c }
	came := arrival{sum: "in", n: 2, whole: true, closed: true}
	with := func(c call, f func(c *call)) call { f(&c); return c }
	for _, row := range []struct {
		what  string
		want  want
		call  call
		log   *told
		came  []arrival
		wrong string
	}{
		{"an answer", allowed, good(), logOf(decided, ended), []arrival{came}, ""},
		{"an answer without a record", allowed, good(), logOf(), []arrival{came}, "arrived more often"},
		{"an answer without an end", allowed, good(), logOf(decided), []arrival{came}, "not as many ends"},
		{"an answer that the log calls a failure", allowed, good(), logOf(decided, failed), []arrival{came}, "does not say that it was answered"},
		{"a client with another body than the log", allowed, with(good(), func(c *call) { c.got = "other" }), logOf(decided, ended), []arrival{came}, "the client 2 in and 3 other"},
		{"an origin with another body than the client", allowed, good(), logOf(decided, ended), []arrival{{sum: "other", n: 2, whole: true, closed: true}}, "no origin has the body"},
		{"a client that was not answered", allowed, with(good(), func(c *call) { c.err = errors.New("EOF") }), logOf(decided, ended), []arrival{came}, "was not answered"},
		{"an arrival too many", allowed, good(), logOf(decided, ended), []arrival{came, came}, "arrived more often"},
		{"a handler that hangs", allowed, good(), logOf(decided, ended), []arrival{{sum: "in", n: 2, whole: true}}, "still has it"},
		{"a revision of before", allowed, good(), logOf("egress_allowed decision - early", ended), []arrival{came}, "which was not in force"},
		{"a refusal", refused, told403(), logOf(denial), nil, ""},
		{"a refusal that arrived", refused, told403(), logOf(denial), []arrival{came}, "let pass"},
		{"a refusal that is not in the log", refused, told403(), logOf(), nil, "1 refusals for no_rule have no record of their own, the log counts 0"},
		{"two denials", refused, told403(), logOf(denial, denial), nil, "not one denial"},
		{"a name that is not found in time", late, with(good(), func(c *call) { c.status, c.reason = 504, "resolve_failed" }), logOf(decided, "egress_error complete resolve_failed open"), nil, ""},
		{"a name that is found, and no answer", late, with(good(), func(c *call) { c.status = 502 }), logOf(decided, failed), []arrival{came}, "was not answered"},
		{"a refusal for another reason", refused, with(told403(), func(c *call) { c.reason = "other" }), logOf(denial), nil, "not told"},
		{"an answer where a refusal is due", refused, good(), logOf(decided, ended), []arrival{came}, "let pass"},
		{"let pass by the revision", flipping, good(), logOf(decided, ended), []arrival{came}, ""},
		{"refused against the revision", flipping, told403(), logOf(denial), nil, "says otherwise"},
		{"refused by the next revision, at the boundary", flipping, with(told403(), func(c *call) { c.ended = now.Add(time.Second) }),
			logOf("egress_denied decision no_rule shut"), nil, ""},
		{"let pass against the next revision", flipping, with(good(), func(c *call) { c.ended = now.Add(time.Second) }),
			logOf("egress_allowed decision - shut", ended), []arrival{came}, "says otherwise"},
		{"cut at the boundary", flipping, with(told403(), func(c *call) { c.ended, c.reason = now.Add(time.Second), "policy_changed" }),
			logOf(decided, "egress_error complete policy_changed open"), []arrival{came}, ""},
		{"cut for nothing", flipping, with(told403(), func(c *call) { c.reason = "policy_changed" }),
			logOf(decided, "egress_error complete policy_changed open"), []arrival{came}, "its rule was not gone"},
		{"a failure", faulty, with(good(), func(c *call) { c.status = 502 }), logOf(decided, failed), []arrival{came}, ""},
		{"a broken answer that looks whole", faulty, good(), logOf(decided, failed), []arrival{came}, "whole answer from a broken origin"},
		{"a failure that was refused", faulty, with(good(), func(c *call) { c.status = 403 }), logOf(denial), nil, "the policy allows it"},
		{"a client that left", leaving, with(good(), func(c *call) { c.err = errors.New("canceled") }), logOf(decided, failed), []arrival{came}, ""},
		{"a client that left, without an end", leaving, with(good(), func(c *call) { c.err = errors.New("canceled") }), logOf(decided), []arrival{came}, "not as many ends"},
	} {
		l := newLedger(newIndex(""))
		row.call.want = row.want
		l.calls["/x"] = &row.call
		for _, a := range row.came {
			l.arrivals["/x"] = append(l.arrivals["/x"], &a)
		}
		l.index.by["/x"] = row.log
		(&judge{l: l, revisions: forced}).all()
		if got := strings.Join(l.problems, "\n"); row.wrong == "" && got != "" || !strings.Contains(got, row.wrong) {
			t.Errorf("%s: %q, want %q", row.what, got, row.wrong)
		}
	}
}

func TestTheJudgeSeesWhatNobodyAskedFor(t *testing.T) {
	for what, do := range map[string]func(l *ledger){
		"nobody asked for it":         func(l *ledger) { l.arrivals["/x"] = []*arrival{{}} },
		"the log speaks of /y":        func(l *ledger) { l.index.by["/y"] = logOf(denial) },
		"the log speaks of host a":    func(l *ledger) { l.index.by["host a"] = logOf(decided) },
		"1 refusals for not_tls":      func(l *ledger) { l.noisy("not_tls"); l.noisy("not_tls"); l.index.hellos["not_tls"] = 1 },
		"the log: record 3 follows 1": func(l *ledger) { l.index.broken = []string{"record 3 follows 1"} },
	} {
		l := newLedger(newIndex(""))
		do(l)
		(&judge{l: l}).all()
		if len(l.problems) != 1 || !strings.Contains(l.problems[0], what) {
			t.Errorf("%q, want one that says %q", l.problems, what)
		}
	}
}
