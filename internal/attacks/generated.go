package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// generatedRun is what came of the generated cases.
type generatedRun struct {
	kinds   []string
	cases   map[string]int
	arrived map[string]int // cases of which a whole request reached the upstream
	total   int
	took    time.Duration
	unmet   []string
	origins []originResult
}

const generatedWorkers = 48 // most wait for the engine or for each other

// attackGenerated sends the generated cases to the engine, and what it forwarded
// to every origin that can be had.
func (l *lab) attackGenerated(ctx context.Context) (*generatedRun, error) {
	cases := numbered(generated(), l.up.port)
	l.names = len(cases)
	res, err := l.attack(ctx, enginePeer(""), cases, generatedWorkers)
	if err != nil {
		return nil, err
	}
	g := &generatedRun{cases: map[string]int{}, arrived: map[string]int{}, total: len(cases), took: res.took, unmet: res.unmet(cases)}
	for i, f := range res.findings {
		id := cases[i].id
		if !slices.Contains(g.kinds, id) {
			g.kinds = append(g.kinds, id)
		}
		g.cases[id]++
		if f.arrived > 0 {
			g.arrived[id]++
		}
	}
	g.origins, err = l.differential(ctx)
	for _, o := range g.origins {
		g.unmet = append(g.unmet, o.disagree...)
	}
	return g, err
}

func (g *generatedRun) print(w io.Writer) {
	fmt.Fprintf(w, "%d generated cases in %.0f s:", g.total, g.took.Seconds())
	for _, id := range g.kinds {
		fmt.Fprintf(w, " %s %d (%d arrived);", id, g.cases[id], g.arrived[id])
	}
	fmt.Fprintln(w)
	for _, o := range g.origins {
		fmt.Fprintf(w, "%s %s: %s\n", o.name, o.version, o.said())
	}
	for _, u := range g.unmet[:min(len(g.unmet), 30)] {
		fmt.Fprintf(w, "  %.600s\n", u)
	}
	if more := len(g.unmet) - 30; more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// report is the section of the table.
func (g *generatedRun) report(w io.Writer) {
	if g == nil {
		return
	}
	fmt.Fprintf(w, `
## Generated cases

%d more, against the engine alone, in %.0f s. For each: nothing of it arrived, or what was sent arrived as requests that have one
reading, that the policy allows, and that the log names by method, path and digest. Cases with another outcome: %d.

| kind | cases | arrived |
|---|--:|--:|
`, g.total, g.took.Seconds(), len(g.unmet))
	for _, id := range g.kinds {
		fmt.Fprintf(w, "| %s | %d | %d |\n", id, g.cases[id], g.arrived[id])
	}
	fmt.Fprintf(w, "\nEach distinct stream of bytes that the engine sent upstream was replayed to other parsers, with one more request behind it. They agree on the number of requests, each path and each body:\n\n| origin | version | |\n|---|---|---|\n")
	for _, o := range g.origins {
		fmt.Fprintf(w, "| %s | %s | %s |\n", o.name, o.version, cell(o.said()))
	}
}
