package report

import (
	"strconv"
	"strings"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
)

// The sections about requests.

func (r *Report) denials() section {
	s := section{id: "denials", title: "Denials by reason"}
	c := r.c
	rows := c.denials.sorted(func(v *reasonRow) int64 { return v.n }, text)
	if len(rows) == 0 {
		s.intro = append(s.intro, say("Nothing was denied."))
		return s
	}
	s.intro = append(s.intro, say("What was not forwarded, by the first thing that forbade it. “After” counts requests that a rule allowed and that were stopped "+
		"then, by the address guard for one."))
	var items []bar
	for _, row := range rows {
		items = append(items, bar{logged(row.key), row.val.n, number(row.val.n)})
	}
	s.parts = append(s.parts, part{bars: barsOf("By reason", items, number)},
		r.reasons(rows, "#Denied").part("", c.denials.over, c.denials.rest.n, "denial"))

	t := &grid{columns: columns("Agent", "Host", "Reason", "#Denied", "First", "Last", "Records")}
	for _, row := range c.targets.sorted(func(v *count) int64 { return v.n }, targetKey.String) {
		t.rows = append(t.rows, cells(agent(row.key.agent), host(row.key.host), logged(row.key.reason), number(row.val.n),
			when(row.val.first), when(row.val.last), r.examples(row.val)))
	}
	s.parts = append(s.parts, t.part("Who was denied what", c.targets.over, c.targets.rest.n, "denial"))
	return s
}

// part is a table of bounded size with what is said below it. n of noun, if over
// is not 0, are those that found no place in it.
func (g *grid) part(heading string, over, n int64, noun string) part {
	return part{heading: heading, grid: g, notes: g.cut(restNote(nil, over, n, noun), nil)}
}

// reasons is a table of reasons, and what each was to how many requests.
func (r *Report) reasons(rows []row[string, reasonRow], what string) *grid {
	g := &grid{columns: columns("Reason", "Kind", "What it means", what, "#After", "First", "Last", "Records")}
	for _, row := range rows {
		g.rows = append(g.rows, cells(logged(row.key), r.c.words.of(row.key).String(), r.c.words[row.key].text, number(row.val.n), number(row.val.late),
			when(row.val.first), when(row.val.last), r.examples(&row.val.count)))
	}
	return g
}

// restNote says what found no place in a table of bounded size.
func restNote(notes []para, over, n int64, noun string) []para {
	if over == 0 {
		return notes
	}
	return append(notes, say("There are more rows than are told apart: "+plural(n, noun)+" of others are counted in the totals alone."))
}

func (r *Report) egress() section {
	s := section{id: "egress", title: "Egress by agent and host"}
	c := r.c
	s.intro = append(s.intro, say("What was let out, observed requests included. Bytes are those of bodies, without heads, or of everything in an unread tunnel. "+
		"“Broken” are requests that failed or were stopped after the decision. An agent with * is named by the engine's own flag: Kubernetes does not vouch for it."))
	a := &grid{columns: columns("Agent", "Claims to be", "#Allowed", "#Observed", "#Denied", "#Failed", "#Sent", "#Received", "First", "Last")}
	for _, row := range c.agents.sorted(func(v *agentRow) int64 { return v.n }, agentKey.String) {
		v := row.val
		a.rows = append(a.rows, cells(agent(row.key), claims(v), number(v.by[allowed]), number(v.by[observed]), number(v.by[denied]), number(v.by[failed]),
			size(v.out), size(v.in), when(v.first), when(v.last)))
	}
	if len(a.rows) == 0 {
		s.intro = []para{say("No request is in the log.")}
		return s
	}
	s.parts = append(s.parts, a.part("Agents", c.agents.over, c.agents.rest.n, "request"))
	var items []bar
	for _, row := range c.hosts.sorted(func(v *traffic) int64 { return v.out }, text) {
		items = append(items, bar{logged(row.key), row.val.out, size(row.val.out)})
	}
	s.parts = append(s.parts, part{bars: barsOf("Bytes sent, by host", items, size)})
	p := &grid{columns: columns("Agent", "Host", "#Requests", "#Broken", "#Sent", "#Received", "#Paths", "First", "Last")}
	rows := c.pairs.sorted(func(v *traffic) int64 { return v.out }, pairKey.String)
	for _, row := range rows {
		v := row.val
		p.rows = append(p.rows, cells(agent(row.key.agent), host(row.key.host), number(v.n), number(v.broken), size(v.out), size(v.in),
			v.paths.String(), when(v.first), when(v.last)))
	}
	notes := restNote(nil, c.pairs.over, c.pairs.rest.n, "request")
	notes = p.cut(notes, func(from int) string {
		var n, out int64
		for _, row := range rows[from:] {
			n, out = n+row.val.n, plus(out, row.val.out)
		}
		return ", with " + plural(n, "request") + " and " + size(out) + " sent"
	})
	s.parts = append(s.parts, part{heading: "By agent and host, most bytes sent first", grid: p, notes: notes})
	return s
}

func claims(a *agentRow) para {
	if len(a.claims) == 0 {
		return say("–")
	}
	var p para
	for i, name := range a.claims {
		if i > 0 {
			p = append(p, run{Text: ", "})
		}
		p = append(p, logged(name))
	}
	if a.more {
		p = append(p, run{Text: ", …"})
	}
	return p
}

func (r *Report) rules() section {
	s := section{id: "rules", title: "Rules"}
	c := r.c
	g := &grid{columns: columns("Policy", "Rule", "#Let out", "#Denied", "#Broken", "#Sent", "#Received", "First", "Last")}
	for _, row := range c.rules.sorted(func(v *ruleRow) int64 { return v.n }, ruleKey.String) {
		v := row.val
		g.rows = append(g.rows, cells(logged(row.key.policy), logged(row.key.rule), number(v.n), number(v.denied), number(v.broken), size(v.out), size(v.in),
			when(v.first), when(v.last)))
	}
	p := part{heading: "Rules that decided", grid: g.orNil()}
	if p.grid == nil {
		p.notes = append(p.notes, say("No record names a rule."))
	}
	p.notes = restNote(p.notes, c.rules.over, c.rules.rest.n+c.rules.rest.denied, "decision")
	p.notes = g.cut(p.notes, nil)
	s.parts = append(s.parts, p, r.unused())
	return s
}

// unused compares the rules of a policy file with those that records name.
func (r *Report) unused() part {
	p := part{heading: "Rules never used"}
	if r.o.Policy == nil {
		p.notes = append(p.notes, say("Not known: no policy was given (--policy FILE)."))
		return p
	}
	pol := r.o.Policy
	g := &grid{columns: columns("Policy", "Rule", "Action", "Hosts", "#Line")}
	all := rulesOf(pol.Docs)
	for _, rule := range all {
		if r.c.rules.rows[rule.key] == nil {
			line := "–"
			if rule.line > 0 {
				line = strconv.Itoa(rule.line)
			}
			g.rows = append(g.rows, cells(logged(rule.key.policy), logged(rule.key.rule), rule.action, logged(strings.Join(rule.hosts, " ")), line))
		}
	}
	p.notes = append(p.notes, say("Compared with ", whole(pol.File), ", revision ", logged(pol.Revision), ": "+
		number(int64(len(g.rows)))+" of "+plural(int64(len(all)), "rule")+" are named by no record. Where several rules allow a request together, the record names the first."))
	_, inLog := r.c.revisions.rows[pol.Revision]
	if n := len(r.c.revisions.rows); !inLog || n > 1 {
		which := "other revisions too"
		if !inLog {
			which = "other revisions only"
		}
		p.notes = append(p.notes, say("The log was written under "+which+": a rule that was renamed, added or removed meanwhile is not comparable, "+
			"and the same rules under other flags are another revision."))
	}
	if r.c.rules.over > 0 {
		p.notes = append(p.notes, say("The log names more rules than are told apart: one of those below may be among them."))
	}
	p.grid = g.orNil()
	p.notes = p.grid.cut(p.notes, nil)
	return p
}

// fileRule is a rule of a policy file, as the log would name it.
type fileRule struct {
	key    ruleKey
	action string
	hosts  []string
	line   int // 0: made in Go
}

func rulesOf(docs []v1alpha1.AgentPolicy) (all []fileRule) {
	for i := range docs {
		doc := &docs[i]
		add := func(name string, action v1alpha1.Action, hosts []string, field string) {
			if action == "" {
				action = v1alpha1.Allow
			}
			all = append(all, fileRule{ruleKey{keep(doc.Metadata.Name), keep(name)}, string(action), hosts, doc.Source.Pos(field).Line})
		}
		if len(doc.Spec.Allowlist) > 0 {
			add(v1alpha1.AllowlistName, v1alpha1.Allow, doc.Spec.Allowlist, "spec.allowlist")
		}
		for j := range doc.Spec.Rules {
			rule := &doc.Spec.Rules[j]
			add(doc.RuleName(j), rule.Action, rule.Hosts, "spec.rules["+strconv.Itoa(j)+"]")
		}
	}
	return all
}

func (r *Report) limits() section {
	s := section{id: "limits", title: "Limits hit"}
	g := &grid{columns: columns("Limit", "What it means", "Agent", "Rule", "#Times", "First", "Last", "Records")}
	for _, row := range r.c.limits.sorted(func(v *count) int64 { return v.n }, limitKey.String) {
		g.rows = append(g.rows, cells(logged(row.key.reason), r.c.words[row.key.reason].text, agent(row.key.agent), logged(row.key.rule), number(row.val.n),
			when(row.val.first), when(row.val.last), r.examples(row.val)))
	}
	if len(g.rows) == 0 {
		s.intro = append(s.intro, say("No limit was hit."))
		return s
	}
	s.parts = append(s.parts, g.part("", r.c.limits.over, r.c.limits.rest.n, "refusal"))
	return s
}

func (r *Report) errors() section {
	s := section{id: "errors", title: "Errors"}
	rows := r.c.errors.sorted(func(v *reasonRow) int64 { return v.n }, text)
	if len(rows) == 0 {
		s.intro = append(s.intro, say("No request failed."))
		return s
	}
	s.intro = append(s.intro, say("Requests that a rule allowed and that failed, or connections that failed before there was a request."))
	s.parts = append(s.parts, r.reasons(rows, "#Failed").part("", r.c.errors.over, r.c.errors.rest.n, "error"))
	return s
}

func (r *Report) observed() section {
	s := section{id: "observed", title: "Let pass by observe mode"}
	g := &grid{columns: columns("Agent", "Request", "Reason to deny", "#Requests", "First", "Last", "Records")}
	for _, row := range r.c.observed.sorted(func(v *count) int64 { return v.n }, targetKey.String) {
		g.rows = append(g.rows, cells(agent(row.key.agent), logged(row.key.host), logged(row.key.reason), number(row.val.n),
			when(row.val.first), when(row.val.last), r.examples(row.val)))
	}
	if len(g.rows) == 0 {
		s.intro = append(s.intro, say("None: every denial was enforced."))
		return s
	}
	s.intro = append(s.intro, say("The policy says no to these, and they were forwarded, because a policy or the engine was set to observe."))
	s.parts = append(s.parts, g.part("", r.c.observed.over, r.c.observed.rest.n, "request"))
	return s
}

func (r *Report) passthrough() section {
	s := section{id: "passthrough", title: "Egress that nobody read"}
	g := &grid{columns: columns("Agent", "Host", "#Tunnels", "#Broken", "#Sent", "#Received", "First", "Last", "Records")}
	for _, row := range r.c.tunnels.sorted(func(v *traffic) int64 { return v.out }, pairKey.String) {
		v := row.val
		g.rows = append(g.rows, cells(agent(row.key.agent), host(row.key.host), number(v.n), number(v.broken), size(v.out), size(v.in),
			when(v.first), when(v.last), r.examples(&v.count)))
	}
	if len(g.rows) == 0 {
		s.intro = append(s.intro, say("None: the engine read every request that it let out."))
		return s
	}
	s.intro = append(s.intro, say("Tunnels that a passthrough rule let through unread: host and port were judged, and nothing of what was said inside is known."))
	s.parts = append(s.parts, g.part("", r.c.tunnels.over, r.c.tunnels.rest.n, "tunnel"))
	return s
}
