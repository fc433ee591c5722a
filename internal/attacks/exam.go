package main

import (
	"fmt"
	"io"
	"strings"
)

// h2reasons say why a case of h2spec fails that the standard library's server
// fails too. It reads our frames, so they are its own.
func h2reasons() map[string]string {
	const answered = "the stream is answered with 400 in place of a reset; no handler sees it and nothing is forwarded"
	return map[string]string{
		"http2/4.2/3":     "the frame of 20 KB is within the frame size that the server announces; h2spec takes 16 KiB for granted",
		"http2/6.5.3/1":   "a setting twice in one frame ends the connection: the server takes it for an attack",
		"http2/8.1.2.2/1": answered,
		"http2/8.1.2.2/2": answered,
	}
}

// report is the section of the table.
func (f *conformance) report(w io.Writer) {
	if f == nil {
		return
	}
	engine, standard := failures(f.engine), failures(f.standard)
	fmt.Fprintf(w, "\n## H9: h2spec %s\n\nThe engine passes %d of %d; the standard library's server, in the same run, %d of %d.\n\n| case | | expected | got | why |\n|---|---|---|---|---|\n",
		f.version, len(f.engine)-len(engine), len(f.engine), len(f.standard)-len(standard), len(f.standard))
	for _, c := range engine {
		why := h2reasons()[c.ID]
		if why == "" {
			why = "not known: look at it"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", c.ID, cell(c.What), cell(strings.Join(c.Expected, " or ")), cell(c.Got), why)
	}
}

// reportFloods is the section of the table.
func reportFloods(w io.Writer, all []measured, missing error) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, `
## R: floods

Each by %d attackers for %.0f s (slowhttptest: %d connections, %d new ones a second, for %.0f s) against an engine of its own with its limits
as shipped, on the same two cores as the attackers, who give way, and the upstream; the well-behaved client, an agent of its own, makes one request
after another on one connection meanwhile. Its targets: a median of at most %d times, a 99th percentile of at most %d times what it
has alone, and no request that fails; bold where it misses one. Goroutines: before, at most, and after.

| | flood | attempts | resident before / peak, MiB | goroutines | attackers' records, KiB | client alone, median / p99 ms | beside the flood |
|---|---|--:|--:|--:|--:|--:|--:|
`, floodWorkers, floodTime.Seconds(), slowConns, slowRate, slowTime.Seconds(), medianTarget, p99Target)
	for _, m := range all {
		what := m.what
		if m.note != "" {
			what += ": " + m.note
		}
		beside := m.beside.String()
		if m.heldUp() {
			beside = "**" + beside + "**"
		}
		fmt.Fprintf(w, "| %s | %s | %d | %d / %d | %d / %d / %d | %d | %s | %s |\n", m.id, what, m.attempts, m.rss>>20, m.peak>>20, m.before.Goroutines, m.most, m.after.Goroutines, m.log>>10, m.alone, beside)
	}
	if missing != nil {
		fmt.Fprintf(w, "\nNot measured: %s.\n", missing)
	}
}

func printFloods(w io.Writer, all []measured, missing error) {
	if missing != nil {
		fmt.Fprintln(w, "not measured:", missing)
	}
	for _, m := range all {
		met := "within its targets"
		if m.heldUp() {
			met = fmt.Sprintf("HELD UP beyond %dx / %dx", medianTarget, p99Target)
		}
		fmt.Fprintf(w, "%s %s: %d in %.1f s, resident %d MiB, at most %d, goroutines %d, at most %d, then %d, the attackers' records %d KiB, client %s ms alone, %s beside: %s %s\n", m.id, m.what, m.attempts, m.took.Seconds(),
			m.rss>>20, m.peak>>20, m.before.Goroutines, m.most, m.after.Goroutines, m.log>>10, m.alone, m.beside, met, m.note)
	}
}
