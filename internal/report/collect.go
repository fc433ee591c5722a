package report

import (
	"encoding/json"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// agentKey is who asked, as far as it is vouched for: no label buys a second
// line.
type agentKey struct {
	name    string // namespace/serviceaccount, or what the engine calls itself
	vouched bool   // by Kubernetes
}

type pairKey struct {
	agent agentKey
	host  string // with the port, where it is not the scheme's own
}

type targetKey struct {
	agent        agentKey
	host, reason string
}

type ruleKey struct{ policy, rule string }

type limitKey struct {
	reason string
	agent  agentKey
	rule   string
}

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
	engine               bool // it began with engine_start
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
	lost        int64 // completions
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

	records, counted, untimed int64 // read, of these in the time, of these without a readable time
	head                      string
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
	jumps, troubles  list[event]
	findings         []finding
}

func newCollector(since, until time.Time) *collector {
	c := &collector{
		since: since, until: until, words: newGlossary(), controls: controls(), seed: maphash.MakeSeed(),
		events: newTable[string, int64](maxEvents), revisions: newTable[string, revision](maxRevisions), pending: map[string]pending{},
		agents: newTable[agentKey, agentRow](maxAgents), pairs: newTable[pairKey, traffic](maxPairs), hosts: newTable[string, traffic](maxPairs),
		rules: newTable[ruleKey, ruleRow](maxPairs), denials: newTable[string, reasonRow](maxReasons), targets: newTable[targetKey, count](maxPairs),
		errors: newTable[string, reasonRow](maxReasons), limits: newTable[limitKey, count](maxPairs), observed: newTable[targetKey, count](maxPairs),
		tunnels: newTable[pairKey, traffic](maxPairs), pathRoom: maxAllPaths,
	}
	c.findings = make([]finding, len(c.controls))
	return c
}

// add takes the next record. Sessions and pairs of records are followed through
// the whole log, the rest is what stands in the reported time.
func (c *collector) add(e *audit.Entry, file int) {
	c.records++
	c.head = e.Hash
	at := ref{e.Seq, file, e.Line}
	c.follow(e, at)
	if !c.inTime(e) {
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

func (c *collector) inTime(e *audit.Entry) bool {
	if c.since.IsZero() && c.until.IsZero() {
		return true
	}
	if e.Time.IsZero() {
		c.untimed++
		return false
	}
	return !e.Time.Before(c.since) && (c.until.IsZero() || e.Time.Before(c.until))
}

// engine takes the engine's own records.
func (c *collector) engine(e *audit.Entry, at ref) {
	if e.Reason == "audit_recovered" {
		c.troubles.add(event{at: at, time: e.Time, lost: e.Count, first: keep(e.First), last: keep(e.Last), text: keep(e.Detail)})
	}
	if e.Event == "engine_start" && c.now.torn != "" {
		c.troubles.add(event{at: at, time: e.Time, text: c.now.torn})
	}
}

// follow keeps to the sessions, and pairs decisions with completions.
func (c *collector) follow(e *audit.Entry, at ref) {
	if c.now == nil || c.now.id != keep(e.Session) {
		c.settle()
		c.now = &session{id: keep(e.Session)}
		if len(c.sessions) < maxSessions {
			c.sessions = append(c.sessions, c.now)
		} else {
			c.moreSessions++
		}
	}
	switch e.Event {
	case "engine_start":
		c.now.start(e.Raw)
	case "engine_shutdown":
		c.now.stopped = true
	}
	switch {
	case e.ID == "":
	case e.Phase == audit.PhaseComplete.String():
		c.completed(e)
	case e.Event == "egress_allowed" && e.Attempt <= 1:
		if len(c.pending) >= maxPending {
			c.missed++
			return
		}
		p := pending{at: at, time: e.Time, agent: agentOf(e), target: targetOf(e), verdict: allowed, counted: c.inTime(e)}
		if e.Observed {
			p.verdict = observed
		}
		c.pending[keep(e.ID)] = p
	}
}

// completed closes a request, and moves it to what became of it.
func (c *collector) completed(e *audit.Entry) {
	p, ok := c.pending[keep(e.ID)]
	if !ok {
		if c.missed == 0 && c.inTime(e) {
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

// start reads what engine_start says of the engine. The line verified, or the
// report says that it did not.
func (s *session) start(line []byte) {
	var r struct {
		Payload struct {
			Engine  map[string]string `json:"engine"`
			Resumed bool              `json:"resumed"`
			Torn    *struct {
				Bytes  int64  `json:"bytes"`
				File   string `json:"file"`
				SHA256 string `json:"sha256"`
			} `json:"torn"`
		} `json:"payload"`
	}
	s.engine = true
	if json.Unmarshal(line, &r) != nil {
		return // members of other types: not the engine's
	}
	s.version, s.command, s.resumed = keep(r.Payload.Engine["version"]), keep(r.Payload.Engine["command"]), r.Payload.Resumed
	if t := r.Payload.Torn; t != nil {
		s.torn = keep(plural(t.Bytes, "byte") + " of an unfinished record were cut off the file at this start and kept in " + t.File)
	}
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

// agentOf is whose record e is. Nobody's is the zero key: the engine's own name
// stands in such a record.
func agentOf(e *audit.Entry) agentKey {
	switch {
	case e.Namespace != "":
		return agentKey{keep(e.Namespace + "/" + e.ServiceAccount), true}
	case e.Reason == "unknown_principal":
		return agentKey{}
	default:
		return agentKey{keep(e.AgentIdentity), false}
	}
}

// hostOf is the host, with the port where it is not the scheme's own. "" is a
// record that stands for many, or one that was refused before a host was read.
func hostOf(e *audit.Entry) string {
	host := e.Host
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	if e.Port != 0 && (e.Scheme != "http" || e.Port != 80) && (e.Scheme == "http" || e.Port != 443) {
		host += ":" + strconv.Itoa(int(e.Port))
	}
	return keep(host)
}

// targetOf is method, host and path, as far as the record has them.
func targetOf(e *audit.Entry) string {
	path := e.Path + e.PathPattern
	if e.PathLen > 0 {
		path += "..."
	}
	return keep(strings.TrimSpace(e.Method + " " + hostOf(e) + path))
}

func ruleOf(e *audit.Entry) ruleKey { return ruleKey{keep(e.Policy), keep(e.Rule)} }

// ruleName is policy and rule as one word.
func ruleName(e *audit.Entry) string {
	if e.Rule == "" {
		return ""
	}
	return ruleOf(e).String()
}

func (k ruleKey) String() string {
	if k.policy == "" {
		return k.rule
	}
	return k.policy + "/" + k.rule
}
