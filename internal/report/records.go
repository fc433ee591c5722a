package report

// The sections about single records, the log itself, and what it proves.

func (r *Report) unfinished() section {
	s := section{id: "unfinished", title: "Requests without completion"}
	c := r.c
	if c.open.n == 0 {
		s.intro = append(s.intro, say("None: each request that was let out has a record of how it ended."))
	} else {
		s.intro = append(s.intro, say("Let out, and the log does not say how they ended: they were running when the engine died or lost its disk, or they still run. "+
			"What they sent is in no sum of this report."))
		g := &grid{columns: columns("Record", "Time", "Agent", "Request")}
		for _, p := range c.open.items {
			g.rows = append(g.rows, cells(r.name(p.at), when(p.time), agent(p.agent), logged(p.target)))
		}
		s.parts = append(s.parts, part{grid: g, notes: c.open.note()})
	}
	if c.unasked > 0 {
		s.intro = append(s.intro, say(plural(c.unasked, "completion")+" without a decision before."))
	}
	if c.missed > 0 {
		s.intro = append(s.intro, say(plural(c.missed, "request")+" were not followed: more than "+number(maxPending)+" ran at once."))
	}
	return s
}

// note says how many of a list were left out.
func (l *list[T]) note() []para {
	if left := l.n - int64(len(l.items)); left > 0 {
		return []para{say("And " + number(left) + " more.")}
	}
	return nil
}

func (r *Report) extremes() section {
	s := section{id: "extremes", title: "Slowest, biggest and cut off"}
	c := r.c
	for _, t := range []struct {
		heading, column string
		top             *top
		words           func(int64) string
	}{
		{"Slowest requests", "#Took", &c.slow, elapsed},
		{"Most bytes sent", "#Sent", &c.sent, size},
		{"Most bytes received", "#Received", &c.back, size},
	} {
		if len(t.top.items) == 0 {
			continue
		}
		s.parts = append(s.parts, part{heading: t.heading, grid: r.items(t.column, t.top.items, t.words)})
	}
	if c.truncated.n > 0 {
		p := part{heading: "Bodies that ended before their end", grid: r.items("#Received", c.truncated.items, size), notes: c.truncated.note()}
		s.parts = append(s.parts, p)
	}
	if len(s.parts) == 0 {
		s.intro = append(s.intro, say("No request was completed."))
	} else if c.truncated.n == 0 {
		s.intro = append(s.intro, say("No body was cut off."))
	}
	return s
}

func (r *Report) items(column string, items []topItem, words func(int64) string) *grid {
	g := &grid{columns: columns("Record", "Time", column, "Agent", "Request")}
	for _, it := range items {
		g.rows = append(g.rows, cells(r.name(it.at), when(it.time), words(it.value), agent(it.agent), logged(it.target)))
	}
	return g
}

func (r *Report) logTrouble() section {
	s := section{id: "log", title: "The log itself"}
	c := r.c
	if c.jumps.n == 0 {
		s.intro = append(s.intro, say("The clock was never set while an engine wrote."))
	} else {
		g := &grid{columns: columns("Record", "Time after", "#Set by")}
		for _, j := range c.jumps.items {
			g.rows = append(g.rows, cells(r.name(j.at), when(j.time), elapsed(j.jump)))
		}
		s.parts = append(s.parts, part{heading: "Clock jumps", grid: g, notes: c.jumps.note()})
	}
	if c.troubles.n == 0 {
		s.intro = append(s.intro, say("The log never stopped taking records, and no record was cut off its end."))
	} else {
		g := &grid{columns: columns("Record", "Time", "From", "To", "#Completions lost", "What happened")}
		for _, t := range c.troubles.items {
			g.rows = append(g.rows, cells(r.name(t.at), when(t.time), logged(t.first), logged(t.last), number(t.number), logged(t.text)))
		}
		s.parts = append(s.parts, part{heading: "Interruptions", grid: g, notes: append(c.troubles.note(),
			say("While the log takes no record the engine forwards nothing new and answers 503."))})
	}
	if c.removed.n > 0 {
		g := &grid{columns: columns("Record", "Time", "#Segments", "Which")}
		for _, e := range c.removed.items {
			g.rows = append(g.rows, cells(r.name(e.at), when(e.time), number(e.number), logged(e.text)))
		}
		s.parts = append(s.parts, part{heading: "Removed by retention", grid: g, notes: append(c.removed.note(),
			say("Only segments that an anchored checkpoint covers and every sink has taken are removed."))})
	}
	if n := r.killed(); n > 0 {
		s.intro = append(s.intro, say(plural(n, "session")+" before the last ended without engine_shutdown: the engine was killed, or its machine died."))
	}
	return s
}

// killed is how many engines did not stop in order; the last one may still run.
func (r *Report) killed() (n int64) {
	for i, s := range r.c.sessions {
		if s.engine && !s.stopped && s.records > 0 && (i < len(r.c.sessions)-1 || r.c.moreSessions > 0) {
			n++
		}
	}
	return n
}

func (r *Report) owasp() section {
	s := section{id: "owasp", title: "Evidence for OWASP ASI02 and ASI03"}
	s.intro = append(s.intro,
		say("Two risks of the OWASP Top 10 for Agentic Applications (2026) are about what an agent reaches and as whom. The tables name the "+
			"records that are evidence for a control, and those that show a gap. A control without a record was not put to the test in this log: "+
			"that is no evidence that it works, or that it does not."),
		say("Which record speaks for which control is this report's reading, not OWASP's, and no statement of compliance."))
	for _, risk := range risks() {
		g := &grid{columns: columns("Control", "Evidence", "#Requests", "#Agents", "Records", "Counted")}
		for i, c := range r.c.controls {
			if c.risk != risk.id {
				continue
			}
			f := &r.c.findings[i]
			what := run{Text: c.kind.String(), Mark: true}
			if f.n == 0 {
				what = run{Text: "no record"}
			}
			g.rows = append(g.rows, cells(c.title, what, number(f.n), number(int64(len(f.agents))), r.examples(&f.count), c.records))
		}
		s.parts = append(s.parts, part{heading: risk.id + ": " + risk.title, grid: g})
	}
	return s
}

// findings is what deserves a look, the gravest first.
func (r *Report) findings() []remark {
	c := r.c
	var out []remark
	add := func(n int64, noun, tail, section string) {
		if n > 0 {
			out = append(out, remark{say(plural(n, noun) + " " + tail), section})
		}
	}
	add(c.total[observed], "request", "forwarded against the policy (observe mode)", "observed")
	add(tunnelsOf(c), "tunnel", "let through that nobody read", "passthrough")
	add(r.finding("inside"), "request", "refused on the way to a private address or a metadata service", "owasp")
	add(r.finding("unvouched"), "connection", "refused because nobody vouches for the caller", "owasp")
	add(r.finding("names"), "request", "refused because names do not agree (domain fronting)", "owasp")
	add(r.finding("claims"), "request", "made by a caller that claims another name than the one vouched for", "owasp")
	add(r.finding("limit"), "request", "refused by a limit", "limits")
	add(c.open.n, "request", "without a completion", "unfinished")
	add(c.truncated.n, "request", "with a body that was cut off", "extremes")
	add(c.troubles.n, "interruption", "of the log", "log")
	add(c.jumps.n, "clock jump", "while an engine wrote", "log")
	add(r.killed(), "session", "ended without engine_shutdown", "log")
	if c.total[denied] > 0 {
		rows := c.denials.sorted(func(v *reasonRow) int64 { return v.n }, text)
		out = append(out, remark{say(plural(c.total[denied], "request")+" denied, most of them for ", logged(rows[0].key)), "denials"})
	}
	add(c.total[failed], "request", "failed", "errors")
	return out
}

func tunnelsOf(c *collector) (n int64) {
	for _, t := range c.tunnels.rows {
		n += t.n
	}
	return n + c.tunnels.rest.n
}

// finding is how many requests speak for the control with that key.
func (r *Report) finding(key string) int64 {
	for i, c := range r.c.controls {
		if c.key == key {
			return r.c.findings[i].n
		}
	}
	return 0
}

func (r *Report) notes() []para {
	notes := []para{
		say("Text set like ", run{Text: "this", Code: true}, " came from the log, that is from agents, servers and policies. It is shown in ASCII; what is not is escaped "+
			`(\u202e, \xff, \n), and … stands where text was left out.`),
		say("“Records” are payload.seq numbers. aegrail-engine audit show --raw --seq N FILE prints one; audit verify checks the chain."),
		say("The log has no bodies, header values or query values. Requests that never reached the engine are not in it."),
	}
	if r.o.Tool != "" || !r.o.Now.IsZero() {
		by := say("Made")
		if !r.o.Now.IsZero() {
			by = append(by, run{Text: " " + when(r.o.Now)})
		}
		if r.o.Tool != "" {
			by = append(by, run{Text: " by "}, logged(r.o.Tool))
		}
		notes = append(notes, append(by, run{Text: "."}))
	}
	return notes
}
