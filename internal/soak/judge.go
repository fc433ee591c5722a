package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// judge compares what clients did, what origins saw and what the log says.
type judge struct {
	l         *ledger
	revisions []inForce
	unnamed   map[string]int // :: reason → refusals that have no record of their own
}

// all judges everything that was done. Nobody may be under way any more.
func (j *judge) all() {
	x := j.l.index
	j.unnamed = map[string]int{}
	for _, b := range x.broken {
		j.l.problem("the log: %s", b)
	}
	for by, c := range j.l.calls {
		j.call(by, c, x.by[by])
	}
	for path := range j.l.arrivals {
		if j.l.calls[path] == nil {
			j.l.problem("%s arrived, and nobody asked for it", path)
		}
	}
	for by, t := range x.by {
		if j.l.calls[by] == nil && (!strings.HasPrefix(by, "host ") || len(t.decisions) > 0) {
			j.l.problem("the log speaks of %s, and nobody asked for it", by)
		}
	}
	for reason, n := range j.l.noise {
		j.unnamed[reason] += n - x.hellos[reason]
	}
	for reason, n := range j.unnamed {
		if n != x.counted[reason] {
			j.l.problem("%d refusals for %s have no record of their own, the log counts %d", n, reason, x.counted[reason])
		}
	}
}

// call judges one request.
func (j *judge) call(by string, c *call, t *told) {
	if t == nil {
		t = new(told)
	}
	wrong := func(format string, args ...any) {
		j.l.note(format, fmt.Sprintf("%s %s (wanted %s; status %d %s, %v; %d decisions, %d ends, %d denials, %d arrivals; %s): %s", c.host, by, c.want, c.status, c.reason, c.err,
			len(t.decisions), len(t.ends), len(t.denials), len(j.l.arrivals[by]), words(t), fmt.Sprintf(format, args...)))
	}
	j.forcedBy(c, t, wrong)
	j.matched(by, t, wrong)
	switch c.want {
	case allowed:
		j.isAnswered(by, c, t, wrong)
	case refused:
		j.isRefused(by, c, t, wrong)
	case flipping:
		switch {
		case len(t.decisions) == 0:
			j.isRefused(by, c, t, wrong)
		case len(t.ends) == 1 && t.ends[0].Payload.Reason == "policy_changed":
			j.isCut(c, wrong)
		default:
			j.isAnswered(by, c, t, wrong)
		}
	case faulty:
		if len(t.decisions) == 0 || len(t.denials) > 0 {
			wrong("the policy allows it")
		}
		if c.err == nil && c.status < 500 {
			wrong("the client got a whole answer from a broken origin")
		}
	case late:
		if len(t.ends) != 1 || t.ends[0].Payload.Reason != "resolve_failed" {
			j.isAnswered(by, c, t, wrong)
		}
	case leaving:
		if len(t.denials) > 0 {
			wrong("the policy allows it")
		}
	}
}

// words are what the records say that are no plain decisions.
func words(t *told) string {
	var all []string
	for _, r := range slices.Concat(t.ends, t.denials) {
		all = append(all, fmt.Sprint(r.Event, " ", r.Payload.Status, " ", r.Payload.Reason))
	}
	return strings.Join(all, ", ")
}

// forcedBy checks the revision of each record, and the verdict by it.
func (j *judge) forcedBy(c *call, t *told, wrong func(string, ...any)) {
	forced := between(j.revisions, c.began, c.ended)
	for _, r := range slices.Concat(t.decisions, t.denials, t.ends) {
		i := slices.IndexFunc(forced, func(f inForce) bool { return f.name == r.Payload.Revision })
		if i < 0 {
			wrong("record %d is by revision %s, which was not in force", r.Payload.Seq, r.Payload.Revision)
			continue
		}
		if c.want == flipping && r.Payload.Phase != "complete" && forced[i].flips != (r.Event == "egress_allowed") {
			wrong("record %d: revision %s says otherwise", r.Payload.Seq, r.Payload.Revision)
		}
	}
}

// matched checks that what was let go has its end and what arrived was let go.
func (j *judge) matched(by string, t *told, wrong func(string, ...any)) {
	arrived := j.l.arrivals[by]
	if len(arrived) > len(t.decisions) {
		wrong("it arrived more often than it was allowed")
	}
	first := 0
	for _, d := range t.decisions {
		if d.Payload.Attempt <= 1 {
			first++
		}
	}
	if first != len(t.ends) {
		wrong("what was begun has not as many ends")
	}
	for _, a := range arrived {
		if !a.closed {
			wrong("the origin still has it")
		}
	}
}

func (j *judge) isAnswered(by string, c *call, t *told, wrong func(string, ...any)) {
	if c.err != nil || c.status != http.StatusOK && c.status != http.StatusSwitchingProtocols {
		wrong("the client was not answered")
		return
	}
	if len(t.denials) > 0 || len(t.ends) != 1 || t.ends[0].Event != "egress_allowed" {
		wrong("the log does not say that it was answered")
		return
	}
	end := t.ends[0].Payload
	if end.Status != c.status {
		wrong("the log has status %d", end.Status)
	}
	if c.sent == "" {
		return // messages, which are framed
	}
	if end.SentSum != c.sent || end.SentN != c.sentN || end.GotSum != c.got || end.GotN != c.gotN {
		wrong("the log has %d bytes %s sent and %d bytes %s answered, the client %d %s and %d %s", end.SentN, end.SentSum, end.GotN, end.GotSum, c.sentN, c.sent, c.gotN, c.got)
	}
	if !slices.ContainsFunc(j.l.arrivals[by], func(a *arrival) bool { return a.whole && a.sum == c.sent && a.n == c.sentN }) {
		wrong("no origin has the body that was sent")
	}
}

func (j *judge) isRefused(by string, c *call, t *told, wrong func(string, ...any)) {
	if len(t.decisions) > 0 || len(j.l.arrivals[by]) > 0 {
		wrong("it was let pass")
	}
	if len(t.denials) == 0 && c.status != http.StatusOK && c.reason != "" {
		j.unnamed[c.reason]++ // a flood's refusals are counted, not written one by one
		return
	}
	if len(t.denials) != 1 {
		wrong("the log has not one denial")
		return
	}
	if c.status == http.StatusOK || c.method != http.MethodConnect && (c.err != nil || c.reason != t.denials[0].Payload.Reason) {
		wrong("the client was not told the log's reason, %s", t.denials[0].Payload.Reason)
	}
}

// isCut judges a request whose rule went while it was under way.
func (j *judge) isCut(c *call, wrong func(string, ...any)) {
	if !slices.ContainsFunc(between(j.revisions, c.began, c.ended), func(f inForce) bool { return !f.flips }) {
		wrong("it was cut, and its rule was not gone")
	}
	if c.err == nil && c.reason != "policy_changed" {
		wrong("it was cut, and the client was not told")
	}
}

func (w want) String() string {
	return [...]string{"nothing", "an answer", "a refusal", "what the revision says", "a failure", "to leave", "an answer, if the name is found in time"}[w]
}
