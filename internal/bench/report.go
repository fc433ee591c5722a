package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are what the passes gave.
type results struct {
	values   map[string]map[string][][]float64 // :: row → peer → a slice of figures for each pass, nil where it failed
	errs     map[string]map[string]error
	freshCPU time.Duration // of processes that have ended
	foreign  float64       // share of the proxies' core that others took

	grown  []growth
	micros []micro
	log    *logFigures // nil: not measured, as the two above are empty
}

func newResults() *results {
	return &results{values: map[string]map[string][][]float64{}, errs: map[string]map[string]error{}}
}

func (r *results) add(w row, peer string, values []float64, err error) {
	if r.values[w.name] == nil {
		r.values[w.name], r.errs[w.name] = map[string][][]float64{}, map[string]error{}
	}
	if err != nil {
		r.errs[w.name][peer] = err
		values = nil
	}
	r.values[w.name][peer] = append(r.values[w.name][peer], values)
}

// series is one figure of one peer by pass, NaN where there is none.
func (r *results) series(w row, peer string, f int) []float64 {
	passes := r.values[w.name][peer]
	out := make([]float64, len(passes))
	for i, p := range passes {
		out[i] = math.NaN()
		if f < len(p) {
			out[i] = p[f]
		}
		if w.added && peer != direct.name {
			if d := r.series(w, direct.name, f); i < len(d) {
				out[i] -= d[i]
			}
		}
	}
	return out
}

func over(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}

// median of what is a number, else NaN.
func median(v []float64) float64 {
	v = slices.DeleteFunc(slices.Clone(v), math.IsNaN)
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// spread is how far the passes lie apart, as a share of their median.
func spread(v []float64) float64 {
	v = slices.DeleteFunc(slices.Clone(v), math.IsNaN)
	if len(v) < 2 {
		return 0
	}
	return (slices.Max(v) - slices.Min(v)) / median(v)
}

// reference is the first of the peers that are measured in w and not the
// engine: HAProxy, where it takes part.
func (l *lab) reference(w row) string {
	for _, p := range l.peers {
		if !p.ours && (w.who == nil || w.who(p)) {
			return p.name
		}
	}
	return ""
}

// markdown is the report.
func (l *lab) markdown(res *results, took time.Duration) []byte {
	var b bytes.Buffer
	l.preamble(&b, res, took)
	if len(l.rows()) > 0 {
		l.table(&b, res)
	}
	if len(res.grown) > 0 {
		growthTable(&b, res.grown)
	}
	if len(res.micros) > 0 {
		fmt.Fprintf(&b, "\n## In the process\n\nBy testing.Benchmark, one goroutine, wall time, the least of %d runs.\n\n| what | ns | allocations | bytes | target |\n|---|--:|--:|--:|--:|\n", microRuns)
		for _, m := range res.micros {
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %s |\n", m.name, threeDigits(m.ns), m.allocs, m.bytes, m.target)
		}
	}
	if res.log != nil {
		res.log.markdown(&b)
	}
	return b.Bytes()
}

func (l *lab) preamble(w io.Writer, res *results, took time.Duration) {
	fmt.Fprintf(w, "# What a request costs\n\n")
	fmt.Fprintf(w, "Made by `go run . %s` (`make bench` gives no -quick) on %s in %s.\n\n", strings.Join(os.Args[1:], " "), time.Now().UTC().Format(time.DateOnly), took.Round(time.Second))
	fmt.Fprintf(w, "- %s; Linux %s; the proxy alone on core %d, load and origin on core %d.\n", cpuModel(), kernel(), l.cores.proxy, l.cores.load)
	fmt.Fprintf(w, "- %s; built with %s. The engine's binary is %.1f MB.\n", strings.Join(l.versions(), ", "), runtime.Version(), float64(l.binarySize)/1e6)
	fmt.Fprintf(w, "- CPU time of the proxy's process by the kernel, user and system. Medians of %d interleaved passes of %s; rows marked ¹ in fresh processes, the last of them once.\n",
		l.size.passes, l.size.window)
	fmt.Fprintf(w, "- In brackets: the ratio to the first peer of the row that is not the engine, median of the passes' ratios; Target: the most, as a ratio to the best peer of this run or to one that is named, or in the unit of the row; then what the engine came to. Spread: how far the passes lie apart, widest cell.\n")
	fmt.Fprintf(w, "- Everywhere: %s, ECDSA P-256 leaves, full handshakes from clients, upstream connections reused and resumed.\n", expected)
	fmt.Fprintf(w, "- %s has its policy, both digests and the audit log (written) on; the others have no rules, digests or log. HAProxy gets the TLS connection by SNI, the others a CONNECT first.\n", engineName)
	if res.foreign > 0.02 {
		fmt.Fprintf(w, "- **Disturbed**: other processes took %.0f%% of the proxies' core during the run.\n", 100*res.foreign)
	}
	for _, m := range l.missing {
		fmt.Fprintf(w, "- Not measured: %s.\n", m)
	}
	for _, name := range sortedKeys(res.errs) {
		for _, p := range sortedKeys(res.errs[name]) {
			fmt.Fprintf(w, "- Failed: %s, %s.\n", name, oneLine(res.errs[name][p].Error()))
		}
	}
	fmt.Fprintln(w)
}

func (l *lab) table(w io.Writer, res *results) {
	head, rule := "| what | unit |", "|---|---|"
	for _, p := range l.peers {
		head, rule = head+" "+p.name+" |", rule+"--:|"
	}
	fmt.Fprintf(w, "%s direct | target | spread |\n%s--:|--:|--:|\n", head, rule)
	for _, r := range l.rows() {
		for f, fig := range r.figures {
			l.line(w, res, r, f, fig)
		}
	}
}

func (l *lab) line(w io.Writer, res *results, r row, f int, fig figure) {
	name := fig.name
	if r.fresh {
		name += " ¹"
	}
	fmt.Fprintf(w, "| %s | %s |", name, fig.unit)
	reference := l.reference(r)
	base := res.series(r, reference, f)
	widest := 0.0
	for _, p := range l.peers {
		values := res.series(r, p.name, f)
		v := median(values)
		switch {
		case res.errs[r.name][p.name] != nil:
			fmt.Fprint(w, " failed |")
		case math.IsNaN(v):
			fmt.Fprint(w, " – |")
		case p.name == reference || r.added || math.IsNaN(median(over(values, base))):
			fmt.Fprintf(w, " %.*f |", fig.digits, v*fig.scale)
		default:
			fmt.Fprintf(w, " %.*f (%.2f) |", fig.digits, v*fig.scale, median(over(values, base)))
		}
		if !r.added {
			widest = max(widest, spread(values))
		}
	}
	straight := "–"
	if r.added {
		straight = fmt.Sprintf("%.*f", fig.digits, median(res.series(r, direct.name, f))*fig.scale)
	}
	fmt.Fprintf(w, " %s | %s | %s |\n", straight, l.verdict(res, r, f, fig), percent(widest))
}

func percent(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*v)
}

// threeDigits keeps the figures of a number that mean something.
func threeDigits(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%s, %d cores", strings.TrimSpace(value), runtime.NumCPU())
		}
	}
	return "unknown CPU"
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// watchCore begins to watch a core. What it returns says which share of the
// time since then was spent there on anything but ours.
func watchCore(core int) func(ours time.Duration) float64 {
	began, before := time.Now(), busy(core)
	return func(ours time.Duration) float64 {
		return (busy(core) - before - ours).Seconds() / time.Since(began).Seconds()
	}
}

// busy is how long a core was neither idle nor waiting for a disk: the columns
// of /proc/stat are user, nice, system, idle, iowait, irq, softirq, steal.
func busy(core int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100
	data, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(data)) {
		field := strings.Fields(line)
		if len(field) < 9 || field[0] != "cpu"+strconv.Itoa(core) {
			continue
		}
		var sum time.Duration
		for i, f := range field[1:9] {
			if n, err := strconv.ParseInt(f, 10, 64); err == nil && i != 3 && i != 4 {
				sum += time.Duration(n) * tick
			}
		}
		return sum
	}
	return 0
}
