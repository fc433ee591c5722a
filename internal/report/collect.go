package report

import (
	"encoding/json"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// traffic is what left, and what came back.
type traffic struct {
	count
	broken  int64 // requests that failed, or were stopped after the decision
	out, in int64 // bytes of bodies
	paths   distinct
}

// agentRow is one agent's.
type agentRow struct {
	traffic
	by     [verdicts]int64
	claims []string // at most maxClaims
	more   bool     // … there were more
}

// ruleRow is one rule's.
type ruleRow struct {
	traffic
	denied int64
}

// reasonRow is how often a reason stands in the log.
type reasonRow struct {
	count
	late int64 // of n, after the decision had been to allow
}

// session is one start of an engine, or of the library.
type session struct {
	id, version, command string
	engine               bool // an engine wrote it: its records are numbered
	began                bool // with engine_start, in this log
	resumed              bool
	stopped              bool   // it ended with engine_shutdown
	torn                 string // what was cut off the file at this start
	records              int64  // of the reported ones
	span
}

// revision is a policy that was in force.
type revision struct {
	count
	order int // in which they came, from 1
}

// take counts a decision; the start of an engine only says what is in force.
func (r *revision) take(e *audit.Entry, at ref, order int) {
	if r.order == 0 {
		r.order = order
	}
	if e.Event == "engine_start" {
		r.see(e.Time)
		return
	}
	r.add(e, at, 1)
}

// pending is a request that was let out and has no completion yet.
type pending struct {
	at      ref
	time    time.Time
	agent   agentKey
	target  string
	verdict verdict
	counted bool // in the reported time
}

// event is something about the log itself.
type event struct {
	at          ref
	time        time.Time
	jump        int64 // ms
	number      int64 // of completions lost, or of segments removed
	first, last string
	text        string
}

// collector aggregates records. The collector's methods are called by one
// goroutine.
type collector struct {
	since, until time.Time
	words        glossary
	controls     []control
	seed         maphash.Seed

	records, counted, untimed int64 // read; of these in the reported time; left out for want of a readable one
	events                    table[string, int64]
	sessions                  []*session
	moreSessions              int64
	now                       *session
	revisions                 table[string, revision]
	span                      span

	pending map[string]pending // :: id → request, of the session now
	missed  int64              // requests that were not followed: too many at once
	open    list[pending]      // never completed
	unasked int64              // completions without a decision

	timeline timeline
	lumped   int64 // refusals in records that stand for several
	total    [verdicts]int64
	agents   table[agentKey, agentRow]
	pairs    table[pairKey, traffic]
	hosts    table[string, traffic]
	rules    table[ruleKey, ruleRow]
	denials  table[string, reasonRow]
	targets  table[targetKey, count]
	errors   table[string, reasonRow]
	limits   table[limitKey, count]
	observed table[targetKey, count]
	tunnels  table[pairKey, traffic]
	pathRoom int

	truncated        list[topItem]
	slow, sent, back top
	beats            table[string, count] // heartbeats by reason
	jumps, troubles  list[event]
	removed          list[event] // segments, by retention
	findings         []finding
}

func newCollector(since, until time.Time) *collector {
	c := &collector{
		since: since, until: until, words: newGlossary(), controls: controls(), seed: maphash.MakeSeed(),
		events: newTable[string, int64](maxEvents), revisions: newTable[string, revision](maxRevisions), pending: map[string]pending{},
		agents: newTable[agentKey, agentRow](maxAgents), pairs: newTable[pairKey, traffic](maxPairs), hosts: newTable[string, traffic](maxPairs),
		rules: newTable[ruleKey, ruleRow](maxPairs), denials: newTable[string, reasonRow](maxReasons), targets: newTable[targetKey, count](maxPairs),
		errors: newTable[string, reasonRow](maxReasons), limits: newTable[limitKey, count](maxPairs), observed: newTable[targetKey, count](maxPairs),
		tunnels: newTable[pairKey, traffic](maxPairs), beats: newTable[string, count](maxReasons), pathRoom: maxAllPaths,
	}
	c.findings = make([]finding, len(c.controls))
	return c
}

// add takes the next record. Sessions and pairs of records are followed through
// the whole log, the rest is what stands in the reported time.
func (c *collector) add(e *audit.Entry, file int) {
	c.records++
	at := ref{e.Seq, file, e.Line}
	in := c.inTime(e.Time)
	c.follow(e, at, in)
	if !in {
		if e.Time.IsZero() {
			c.untimed++
		}
		return
	}
	c.counted++
	c.span.see(e.Time)
	c.now.records++
	c.now.see(e.Time)
	*c.events.at(keep(e.Event))++
	if e.ClockJumpMS != 0 {
		c.jumps.add(event{at: at, time: e.Time, jump: e.ClockJumpMS})
	}
	if e.PolicyRevision != "" && e.Phase != audit.PhaseComplete.String() {
		c.revisions.at(keep(e.PolicyRevision)).take(e, at, len(c.revisions.rows))
	}
	s := seen{Entry: e, group: c.words.of(e.Reason), decision: e.Phase != audit.PhaseComplete.String()}
	switch e.Event {
	case "egress_allowed":
		if s.verdict = allowed; e.Observed {
			s.verdict = observed
		}
	case "egress_denied":
		s.verdict = denied
	case "egress_error":
		s.verdict = failed
	default:
		c.engine(e, at)
		return
	}
	c.egress(&s, at)
}

// inTime reports that a record is in the reported time. One whose time cannot
// be read is, if there is no bound.
func (c *collector) inTime(t time.Time) bool {
	if c.since.IsZero() && c.until.IsZero() {
		return true
	}
	return !t.IsZero() && !t.Before(c.since) && (c.until.IsZero() || t.Before(c.until))
}

// engine takes the engine's own records.
func (c *collector) engine(e *audit.Entry, at ref) {
	if e.Event == "engine_start" && c.now.torn != "" {
		c.troubles.add(event{at: at, time: e.Time, text: c.now.torn})
	}
	if e.Event != "engine_heartbeat" {
		return
	}
	c.beats.at(keep(e.Reason)).add(e, at, 1)
	what := event{at: at, time: e.Time, number: e.Count, first: keep(e.First), last: keep(e.Last), text: keep(e.Detail)}
	switch e.Reason {
	case "audit_recovered":
		if e.Torn != nil {
			what.text = keep(tornText(e.Torn) + ": " + e.Detail)
		}
		c.troubles.add(what)
	case "retention":
		c.removed.add(what)
	}
}

// follow keeps to the sessions, and pairs decisions with completions. in says
// that the record is in the reported time.
func (c *collector) follow(e *audit.Entry, at ref, in bool) {
	if c.now == nil || c.now.id != keep(e.Session) {
		c.settle()
		c.now = &session{id: keep(e.Session), engine: e.Seq > 0}
		if len(c.sessions) < maxSessions {
			c.sessions = append(c.sessions, c.now)
		} else {
			c.moreSessions++
		}
	}
	switch e.Event {
	case "engine_start":
		c.now.start(e)
	case "engine_shutdown":
		c.now.stopped = true
	}
	switch {
	case e.ID == "":
	case e.Phase == audit.PhaseComplete.String():
		c.completed(e, in)
	case e.Event == "egress_allowed" && e.Attempt <= 1:
		if len(c.pending) >= maxPending {
			c.missed++
			return
		}
		p := pending{at: at, time: e.Time, agent: agentOf(e), target: targetOf(e), verdict: allowed, counted: in}
		if e.Observed {
			p.verdict = observed
		}
		c.pending[keep(e.ID)] = p
	}
}

// completed closes a request, and moves it to what became of it.
func (c *collector) completed(e *audit.Entry, in bool) {
	p, ok := c.pending[keep(e.ID)]
	if !ok {
		if c.missed == 0 && in {
			c.unasked++
		}
		return
	}
	delete(c.pending, keep(e.ID))
	became := p.verdict
	switch e.Event {
	case "egress_error":
		became = failed
	case "egress_denied":
		became = denied
	}
	if !p.counted || became == p.verdict {
		return
	}
	c.total[p.verdict]--
	c.total[became]++
	c.timeline.add(p.time, p.verdict, -1)
	c.timeline.add(p.time, became, 1)
	by := &c.agents.at(p.agent).by
	by[p.verdict]--
	by[became]++
}

// settle lists what a session left open: ids are one session's own.
func (c *collector) settle() {
	rest := slices.SortedFunc(maps.Values(c.pending), func(a, b pending) int {
		if a.at.file != b.at.file {
			return a.at.file - b.at.file
		}
		return int(a.at.line - b.at.line)
	})
	for _, p := range rest {
		if p.counted {
			c.open.add(p)
		}
	}
	clear(c.pending)
}

// start reads what engine_start says of the engine. The record verified, or the
// report says that it did not.
func (s *session) start(e *audit.Entry) {
	var r struct {
		Payload struct {
			Engine map[string]string `json:"engine"`
		} `json:"payload"`
	}
	s.engine, s.began, s.resumed = true, true, e.Resumed
	if e.Torn != nil {
		s.torn = keep(tornText(e.Torn))
	}
	if json.Unmarshal(e.Raw, &r) != nil {
		return // members of other types: not the engine's
	}
	s.version, s.command = keep(r.Payload.Engine["version"]), keep(r.Payload.Engine["command"])
}

func tornText(t *audit.Torn) string {
	return plural(t.Bytes, "byte") + " of an unfinished record were cut off the file and kept in " + t.File
}

// egress takes a record about a request.
func (c *collector) egress(s *seen, at ref) {
	n := int64(1)
	if s.decision {
		n = min(max(s.Count, 1), maxTimes)
		if s.Attempt > 1 {
			return // one more attempt at a request that was counted
		}
		c.decision(s, at, n)
	} else {
		c.completion(s, at)
	}
	c.weigh(s, at, n)
	reason := keep(s.Reason)
	switch s.verdict {
	case allowed, observed:
	case denied:
		c.denials.at(reason).take(s, at, n)
		c.targets.at(targetKey{agentOf(s.Entry), hostOf(s.Entry), reason}).add(s.Entry, at, n)
	default:
		c.errors.at(reason).take(s, at, n)
	}
	if s.group == groupLimit && (s.verdict == denied || s.verdict == failed) {
		c.limits.at(limitKey{reason, agentOf(s.Entry), ruleName(s.Entry)}).add(s.Entry, at, n)
	}
}

func (r *reasonRow) take(s *seen, at ref, n int64) {
	r.add(s.Entry, at, n)
	if !s.decision {
		r.late += n
	}
}

// decision counts a request.
func (c *collector) decision(s *seen, at ref, n int64) {
	e, who, host := s.Entry, agentOf(s.Entry), hostOf(s.Entry)
	c.total[s.verdict] += n
	c.timeline.add(e.Time, s.verdict, n)
	if n > 1 {
		c.lumped += n
	}
	agent := c.agents.at(who)
	agent.by[s.verdict] += n
	agent.add(e, at, n)
	agent.claim(e)
	if !s.forwards() {
		if s.Rule != "" {
			rule := c.rules.at(ruleOf(e))
			rule.see(e.Time)
			rule.denied += n
		}
		return
	}
	rows := []*traffic{c.pairs.at(pairKey{who, host}), c.hosts.at(host)}
	if s.Rule != "" {
		rows = append(rows, &c.rules.at(ruleOf(e)).traffic)
	}
	if s.Scheme == "tunnel" {
		rows = append(rows, c.tunnels.at(pairKey{who, host}))
	}
	path := maphash.String(c.seed, e.Path+"\x00"+e.PathPattern+"\x00"+e.PathSHA256)
	for _, r := range rows {
		r.add(e, at, n)
	}
	rows[0].paths.add(path, &c.pathRoom)
	if s.verdict == observed {
		c.observed.at(targetKey{who, strings.TrimSpace(keep(e.Method) + " " + host), keep(e.Reason)}).add(e, at, n)
	}
}

// claim keeps what the agent's label says it is.
func (a *agentRow) claim(e *audit.Entry) {
	switch claimed := keep(e.Claimed); {
	case claimed == "" || slices.Contains(a.claims, claimed):
	case len(a.claims) < maxClaims:
		a.claims = append(a.claims, claimed)
	default:
		a.more = true
	}
}

// completion adds what a request came to.
func (c *collector) completion(s *seen, at ref) {
	e, who, host := s.Entry, agentOf(s.Entry), hostOf(s.Entry)
	rows := []*traffic{&c.agents.at(who).traffic, c.pairs.at(pairKey{who, host}), c.hosts.at(host)}
	if s.Rule != "" {
		rows = append(rows, &c.rules.at(ruleOf(e)).traffic)
	}
	if s.Scheme == "tunnel" {
		rows = append(rows, c.tunnels.at(pairKey{who, host}))
	}
	for _, r := range rows {
		r.see(e.Time)
		r.out = plus(r.out, e.RequestBytes)
		r.in = plus(r.in, e.ResponseBytes)
		if s.verdict == denied || s.verdict == failed {
			r.broken++
		}
	}
	item := func() topItem { return topItem{at: at, time: e.Time, agent: who, target: targetOf(e)} }
	c.slow.add(e.DurationMS, item)
	c.sent.add(e.RequestBytes, item)
	c.back.add(e.ResponseBytes, item)
	if e.Truncated {
		t := item()
		t.value = e.ResponseBytes
		c.truncated.add(t)
	}
}
