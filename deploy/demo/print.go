package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
)

// printer writes what a newcomer should notice: short, aligned, and in colour
// only on a terminal.
type printer struct {
	out    io.Writer
	colour bool
}

// newPrinter follows https://no-color.org.
func newPrinter(out *os.File) *printer {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &printer{out: out, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Codes of ECMA-48 SGR.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func (p *printer) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *printer) title(name, what string) {
	fmt.Fprintf(p.out, "%s: %s\n", p.paint(bold, name), what)
}

// note says what takes a while.
func (p *printer) note(text string) {
	fmt.Fprintln(p.out, p.paint(faint, text))
}

func (p *printer) section(text string) {
	fmt.Fprintf(p.out, "\n%s\n", p.paint(bold, text))
}

// call prints a line of what the agent tried and what it got.
func (p *printer) call(r result) {
	verdict, code, text := "allowed", green, fmt.Sprintf("%q", r.Text)
	if r.Call.Stream {
		text += "  the first word came before the second was sent"
	}
	if r.Reason != "" {
		verdict, code, text = "denied", red, r.Reason
	}
	if r.check() != nil {
		verdict, code, text = "WRONG", red, fmt.Sprintf("%d %s %s", r.Status, r.Reason, r.Text)
	}
	target := r.Call.URL
	if u, err := url.Parse(target); err == nil && u.Hostname() == modelHost {
		target = u.Path
	}
	fmt.Fprintf(p.out, "  %-17s %-6s %-26s %s  %s\n", r.Call.What, r.Call.Method, target, p.paint(code, fmt.Sprintf("%-7s", verdict)), text)
}

// command prints a command and what it said, indented.
func (p *printer) command(line, output string) {
	fmt.Fprintln(p.out, p.paint(faint, "  $ "+line))
	for l := range strings.Lines(output) {
		fmt.Fprintln(p.out, "  "+strings.TrimRight(l, "\n"))
	}
}
