package main

import (
	"fmt"
	"math"
	"os"
	"strings"
)

// target is what the engine is to keep to. The zero value is none.
type target struct {
	ratio float64 // to the peer of the row that is best, or to the one that is named
	peer  string
	most  float64 // in the unit of the figure, where ratio is 0
}

// verdict says whether the engine keeps to the target of a figure: what it is
// held against, and what it came to.
func (l *lab) verdict(res *results, r row, f int, fig figure) string {
	t := fig.target
	ours := res.series(r, engineName, f)
	if t == (target{}) || math.IsNaN(median(ours)) {
		return ""
	}
	met := func(ok bool) string {
		if ok {
			return "met"
		}
		return "**missed**"
	}
	if t.ratio == 0 {
		v := median(ours) * fig.scale
		return fmt.Sprintf("%g: %s", t.most, met(v <= t.most))
	}
	best := l.best(res, r, f)
	if t.peer != "" {
		best = t.peer
	}
	ratio := median(over(ours, res.series(r, best, f)))
	if math.IsNaN(ratio) {
		return ""
	}
	return fmt.Sprintf("%.2f of %s: %s, %.2f", t.ratio, best, met(ratio <= t.ratio), ratio)
}

// best is the peer that is not the engine with the least in a row, "" if none
// has a figure.
func (l *lab) best(res *results, r row, f int) string {
	name, least := "", math.Inf(1)
	for _, p := range l.peers {
		if p.ours {
			continue
		}
		if v := median(res.series(r, p.name, f)); v < least && res.errs[r.name][p.name] == nil {
			name, least = p.name, v
		}
	}
	return name
}

// short is the table in short for the README: what an agent's traffic is made
// of, without ratios and targets.
func (l *lab) short(res *results) string {
	var b strings.Builder
	head, rule := "| what |", "|---|"
	for _, p := range l.peers {
		head, rule = head+" "+p.name+" |", rule+"--:|"
	}
	fmt.Fprintf(&b, "%s\n%s\n", head, rule)
	for _, r := range l.rows() {
		for f, fig := range r.figures {
			if fig.short == "" {
				continue
			}
			fmt.Fprintf(&b, "| %s |", fig.short)
			for _, p := range l.peers {
				v := median(res.series(r, p.name, f))
				if math.IsNaN(v) || res.errs[r.name][p.name] != nil {
					b.WriteString(" – |")
				} else {
					fmt.Fprintf(&b, " %.*f |", fig.digits, v*fig.scale)
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// shortBegin and shortEnd enclose the part of a file that -short writes.
const shortBegin, shortEnd = "<!-- begin: make bench -->\n", "<!-- end: make bench -->\n"

// insertShort puts a table between the marks of a file.
func insertShort(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, shortBegin)
	_, after, ended := strings.Cut(rest, shortEnd)
	if !found || !ended {
		return "", fmt.Errorf("it has no lines %q and %q", strings.TrimSpace(shortBegin), strings.TrimSpace(shortEnd))
	}
	return before + shortBegin + table + shortEnd + after, nil
}

func writeShort(name, table string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	out, err := insertShort(string(text), table)
	if err != nil {
		return fmt.Errorf("writing the table into %s: %w", name, err)
	}
	return os.WriteFile(name, []byte(out), 0o644)
}
