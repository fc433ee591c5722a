package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// variant is an engine that has more of something than the others. The zero value
// is none.
type variant struct {
	rules int   // that match nothing of the load
	log   int64 // bytes that are in the log when the engine starts
}

// moreRules is a policy's end with n rules, each with a host and a path of its own.
func moreRules(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "    - {name: rule%06[1]d, hosts: [service%06[1]d.tools.example.com], methods: [GET, POST], paths: [/v1/tenants/%06[1]d/items]}\n", i)
	}
	return b.String()
}

// fillLog makes a log of at least n bytes.
func fillLog(name string, n int64) error {
	log, err := audit.Open(audit.Config{File: name, Identity: "bench"})
	if err != nil {
		return err
	}
	r := newRecords(log, 0)
	for size := int64(0); err == nil && size < n; {
		for i := 0; err == nil && i < 1000; i++ {
			err = r.request()
		}
		var info os.FileInfo
		if info, err = os.Stat(name); err == nil {
			size = info.Size()
		}
	}
	return errors.Join(err, log.Close())
}

// growth is what a request costs by how much there is of something. Each step
// is measured in an engine that has that much.
type growth struct {
	what, unit string
	why        string // what to expect
	steps      []step
}

type step struct {
	label string
	of    variant
	run   measure

	values []float64 // by pass, in us of CPU
}

// growths are what the cost of a request could grow with.
func growths() []growth {
	const mib = 1 << 20
	exchange := keepAlive(64, small)
	rules := growth{what: "rules", unit: "keep-alive exchange, 64 connections", why: "a decision goes by host and path, through maps"}
	for _, n := range []int{0, 1_000, 10_000, 100_000} {
		rules.steps = append(rules.steps, step{label: grouped(n + 10), of: variant{rules: n}, run: exchange})
	}
	hosts := growth{what: "hosts in the cache of leaves", unit: "new connection, origin pooled", why: "each host has upstream connections of its own: fewer of them are warm"}
	for _, n := range []int{1, 100, seenPlaces} {
		hosts.steps = append(hosts.steps, step{label: grouped(n), run: hostsInTurn(n)})
	}
	conns := growth{what: "connections, all busy", unit: "keep-alive exchange", why: "what each connection keeps, here and in the kernel, falls out of the processor's caches"}
	for _, n := range []int{16, 64, 256, 1024} {
		conns.steps = append(conns.steps, step{label: grouped(n), run: keepAlive(n, small)})
	}
	log := growth{what: "MiB in the log's file at the start", unit: "keep-alive exchange, 64 connections", why: "records are appended; the file is read when the engine starts, and another is begun at 256 MiB"}
	for _, n := range []int64{0, 16, 240} {
		log.steps = append(log.steps, step{label: grouped(int(n)), of: variant{log: n * mib}, run: exchange})
	}
	return []growth{rules, hosts, conns, log}
}

// hostsInTurn is new connections to n hosts, one after the other, whose leaves
// are in the cache.
func hostsInTurn(n int) measure {
	return func(ctx context.Context, l *lab, p *running) ([]float64, error) {
		for i := range n { // from the cache, but in the first pass
			if err := l.once(p, seenPlace(i)); err != nil {
				return nil, p.failed(err)
			}
		}
		v, err := l.connections(ctx, p, func(i int64) place { return seenPlace(int(i) % n) })
		return []float64{v}, err
	}
}

// measureGrowth runs the steps of each growth, interleaved. What fails is named in
// the report, as the rows are measured by then.
func (l *lab) measureGrowth(ctx context.Context) ([]growth, error) {
	defer func(w time.Duration) { l.size.window = w }(l.size.window)
	l.size.window = l.size.window * 2 / 3 // many steps
	var done []growth
	for _, g := range growths() {
		fmt.Fprintf(l.progress, "growth with %s\n", g.what)
		if err := l.grow(ctx, &g); err == nil {
			done = append(done, g)
		} else {
			l.missing = append(l.missing, fmt.Sprintf("growth with %s: %s", g.what, oneLine(err.Error())))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func (l *lab) grow(ctx context.Context, g *growth) error {
	standing := map[variant]*running{}
	for _, s := range g.steps {
		if standing[s.of] != nil {
			continue
		}
		r, err := l.start(ctx, l.engine(s.of))
		if err != nil {
			return err
		}
		defer r.stop()
		if err := l.firstContact(ctx, map[string]*running{r.name: r}); err != nil {
			return err
		}
		standing[s.of] = r
	}
	for pass := range l.size.passes {
		for i := range g.steps {
			s := &g.steps[(i+pass)%len(g.steps)]
			v, err := s.run(ctx, l, standing[s.of])
			if err != nil {
				return fmt.Errorf("%s: %w", s.label, err)
			}
			s.values = append(s.values, v...)
		}
	}
	return nil
}

// flat is how far a cost may go from the first step to the last to count as the
// same: less than two passes of one step lie apart.
const flat = 1.10

func growthTable(w io.Writer, all []growth) {
	fmt.Fprintf(w, "\n## Growth\n\nThe engine alone, CPU time of its process, medians; in brackets the ratio to the first.\n\n| of | us CPU for | by how many | |\n|---|---|---|---|\n")
	for _, g := range all {
		var cells []string
		var last float64
		first := g.steps[0].values
		for i, s := range g.steps {
			cell := fmt.Sprintf("%s: %s", s.label, threeDigits(median(s.values)*1e6))
			if i > 0 {
				last = median(over(s.values, first))
				cell += fmt.Sprintf(" (%.2f)", last)
			}
			cells = append(cells, cell)
		}
		verdict := "flat"
		if math.IsNaN(last) || last > flat {
			verdict = g.why
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", g.what, g.unit, strings.Join(cells, ", "), verdict)
	}
}

// grouped writes 10000 as 10 000.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// logFile is where an engine in dir keeps its log.
func logFile(dir string) string { return filepath.Join(dir, "audit.jsonl") }
