package report

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// document puts what was found into words.
func (r *Report) document() *document {
	d := &document{title: "Egress audit report", verified: r.damage == nil}
	d.banner, d.cautions = r.banner(), r.cautions()
	d.facts = r.facts()
	d.sections = []section{
		r.coverage(), r.overTime(), r.denials(), r.egress(), r.rules(), r.limits(), r.errors(), r.observed(), r.passthrough(),
		r.unfinished(), r.extremes(), r.logTrouble(), r.owasp(),
	}
	d.findings = r.findings()
	d.notes = r.notes()
	return d
}

func (r *Report) facts() []fact {
	c := r.c
	var out, in int64
	for _, row := range c.agents.rows {
		out, in = plus(out, row.out), plus(in, row.in)
	}
	out, in = plus(out, c.agents.rest.out), plus(in, c.agents.rest.in)
	var requests int64
	for _, n := range c.total {
		requests += n
	}
	facts := []fact{{"Requests", number(requests)}}
	for v, n := range c.total {
		facts = append(facts, fact{[verdicts]string{"Allowed", "Observed", "Denied", "Failed"}[v], number(n)})
	}
	agents := len(c.agents.rows)
	if c.agents.rows[agentKey{}] != nil {
		agents--
	}
	return append(facts,
		fact{"Agents", atLeast(agents, c.agents.over)},
		fact{"Hosts", atLeast(len(c.hosts.rows), c.hosts.over)},
		fact{"Sent", size(out)}, fact{"Received", size(in)})
}

func atLeast(n int, over int64) string {
	if over > 0 {
		return "over " + number(int64(n))
	}
	return number(int64(n))
}

func (r *Report) coverage() section {
	c, p := r.c, &r.proof
	s := section{id: "coverage", title: "What this log covers"}
	g := &grid{columns: columns("", "")}
	row := func(name string, value any) { g.rows = append(g.rows, cells(name, value)) }
	for _, name := range r.o.Files {
		row("File", whole(name))
	}
	if r.damage == nil && p.LastSeq > 0 {
		row("Records", fmt.Sprintf("%s, seq %d to %d", number(p.Records), p.FirstSeq, p.LastSeq))
	} else {
		row("Records", number(c.records))
	}
	if !r.o.Since.IsZero() || !r.o.Until.IsZero() {
		row("Reported", plural(c.counted, "record")+" "+r.window())
		if c.untimed > 0 {
			row("Left out", plural(c.untimed, "record")+" whose time cannot be read")
		}
	}
	row("First record", when(c.span.first))
	row("Last record", when(c.span.last))
	for _, e := range c.events.sorted(func(n *int64) int64 { return *n }, text) {
		g.rows = append(g.rows, cells(say("Event ", logged(e.key)), number(*e.val)))
	}
	if c.events.over > 0 {
		row("Other events", number(c.events.rest))
	}
	for _, b := range c.beats.sorted(func(v *count) int64 { return v.n }, text) {
		g.rows = append(g.rows, cells(say("Heartbeat ", logged(b.key)), say(number(b.val.n)+", the last "+when(b.val.last))))
	}
	s.parts = append(s.parts, part{grid: g}, r.sessions(), r.revisions())
	return s
}

// window is the reported time.
func (r *Report) window() string {
	switch {
	case r.o.Since.IsZero():
		return "before " + when(r.o.Until)
	case r.o.Until.IsZero():
		return "from " + when(r.o.Since) + " on"
	default:
		return "from " + when(r.o.Since) + " on and before " + when(r.o.Until)
	}
}

func text(s string) string { return s }

func (r *Report) sessions() part {
	p := part{heading: "Sessions", grid: &grid{columns: columns("Session", "Engine", "From", "To", "#Records", "End")}}
	for _, s := range r.c.sessions {
		if s.records == 0 {
			continue
		}
		engine := say("no engine")
		switch {
		case s.version != "":
			engine = say(logged(strings.TrimSpace(s.version + " " + s.command)))
		case s.began:
			engine = say("of unknown version")
		case s.engine:
			engine = say("began before this log")
		}
		end := "killed: no engine_shutdown"
		switch {
		case s.stopped:
			end = "stopped"
		case !s.engine:
			end = "–"
		case s == r.c.now:
			end = "running, or killed"
		}
		p.grid.rows = append(p.grid.rows, cells(logged(s.id), engine, when(s.first), when(s.last), number(s.records), end))
	}
	p.grid = p.grid.orNil()
	p.notes = p.grid.cut(p.notes, nil)
	if n := r.c.moreSessions; n > 0 {
		p.notes = append(p.notes, say(plural(n, "more session")+" are counted and not listed."))
	}
	return p
}

func (r *Report) revisions() part {
	p := part{heading: "Policy revisions in force", grid: &grid{columns: columns("Revision", "From", "To", "#Decisions", "Records")}}
	rows := r.c.revisions.sorted(func(v *revision) int64 { return -int64(v.order) }, text)
	for _, row := range rows {
		p.grid.rows = append(p.grid.rows, cells(logged(row.key), when(row.val.first), when(row.val.last), number(row.val.n), r.examples(&row.val.count)))
	}
	if p.grid = p.grid.orNil(); p.grid == nil {
		p.notes = append(p.notes, say("No record names one."))
	}
	p.notes = p.grid.cut(p.notes, nil)
	if r.c.revisions.over > 0 {
		p.notes = append(p.notes, say(plural(r.c.revisions.rest.n, "decision")+" were made under more revisions, which are not told apart."))
	}
	return p
}

func (r *Report) overTime() section {
	s := section{id: "time", title: "Requests over time"}
	t := &r.c.timeline
	if len(t.rows) == 0 {
		s.intro = append(s.intro, say("No request is in the log."))
		return s
	}
	s.intro = append(s.intro, say("Each request where it was decided, by what became of it. Each bar is "+t.unit()+"."))
	if r.c.jumps.n > 0 {
		s.intro = append(s.intro, say("The clock was set "+times(r.c.jumps.n)+" meanwhile (see the log itself): the order of records is that of their numbers, not that of time."))
	}
	if r.c.lumped > 0 {
		s.intro = append(s.intro, say(plural(r.c.lumped, "refusal")+" that were counted together stand at the time of the record that counts them, and came before it."))
	}
	s.parts = append(s.parts, part{stack: &stack{*t}})
	if t.untimed != 0 {
		s.intro = append(s.intro, say(plural(t.untimed, "request")+" left out: the time cannot be read."))
	}
	return s
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return number(n) + " times"
}

// examples names a few of the records that c counts.
func (r *Report) examples(c *count) para {
	if len(c.refs) == 0 {
		return say("–")
	}
	var p para
	for i, at := range c.refs {
		if i > 0 {
			p = append(p, run{Text: ", "})
		}
		p = append(p, r.name(at)...)
	}
	if int64(len(c.refs)) < c.records {
		p = append(p, run{Text: ", …"})
	}
	return p
}

// name names a record so that it can be found: by its number, or by its place.
func (r *Report) name(at ref) para {
	switch {
	case at.seq > 0:
		return say(strconv.FormatUint(at.seq, 10))
	case len(r.o.Files) == 1:
		return say("line " + number(at.line))
	default:
		return say(logged(filepath.Base(r.o.Files[at.file])), " line "+number(at.line))
	}
}

// agent names an agent; one that nobody vouches for is marked.
func agent(k agentKey) para {
	switch {
	case k == agentKey{}:
		return say("nobody known")
	case k.vouched:
		return say(logged(k.name))
	default:
		return say(logged(k.name), " *")
	}
}

// host names a host; "" stands for refusals that were counted together, or
// that came before a host was known.
func host(s string) para {
	if s == "" {
		return say("not recorded")
	}
	return say(logged(s))
}

// orNil returns nil for a table without rows.
func (g *grid) orNil() *grid {
	if len(g.rows) == 0 {
		return nil
	}
	return g
}

// cut bounds a table at maxRows and says what was left out; more describes the
// rows that are not shown, or is nil.
func (g *grid) cut(notes []para, more func(from int) string) []para {
	if g == nil || len(g.rows) <= maxRows {
		return notes
	}
	left := len(g.rows) - maxRows
	g.rows = g.rows[:maxRows]
	what := ""
	if more != nil {
		what = more(maxRows)
	}
	return append(notes, say(plural(int64(left), "more row")+" left out"+what+"."))
}

// barsOf makes a plot of the heaviest items.
func barsOf(title string, items []bar, words func(int64) string) *bars {
	slices.SortStableFunc(items, func(a, b bar) int { return cmp.Compare(b.value, a.value) })
	items = slices.DeleteFunc(items, func(b bar) bool { return b.value <= 0 })
	if len(items) == 0 {
		return nil
	}
	if len(items) > maxBars {
		rest := bar{label: run{Text: plural(int64(len(items)-maxBars+1), "other")}}
		for _, b := range items[maxBars-1:] {
			rest.value = plus(rest.value, b.value)
		}
		rest.text = words(rest.value)
		items = append(items[:maxBars-1:maxBars-1], rest)
	}
	return &bars{title: title, items: items}
}
