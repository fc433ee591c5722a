package report

import "strings"

// A document is the report before it is Markdown or HTML. Every text in it is
// either ours (plain) or came from the log and was made visible (code): the
// renderers escape both, and show the second as code.

type document struct {
	title    string
	verified bool
	banner   []para // the first is the headline
	cautions []para
	facts    []fact
	findings []remark
	sections []section
	notes    []para
}

// fact is a figure at the top.
type fact struct{ Name, Value string }

// remark points at something that deserves a look.
type remark struct {
	text    para
	section string // id of the section that has more
}

type section struct {
	id, title string
	intro     []para
	parts     []part
}

// part is a plot or a table of a section, under a heading of its own or none.
type part struct {
	heading string
	bars    *bars
	stack   *stack
	grid    *grid
	notes   []para
}

// run is a piece of a sentence.
type run struct {
	Text string
	Code bool // came from the log, made visible
	Mark bool // a word that is to stand out, one of evidence's
}

// Long reports that a table must be able to break the text anywhere.
func (r run) Long() bool { return len(r.Text) > 28 }

type para []run

// say makes a paragraph of our own words (string) and of runs.
func say(parts ...any) para {
	var p para
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			p = append(p, run{Text: part})
		case run:
			p = append(p, part)
		case []run:
			p = append(p, part...)
		}
	}
	return p
}

// logged is a text that came from the log, or "–" where there is none.
func logged(s string) run {
	if s == "" {
		return run{Text: "–"}
	}
	return run{Text: shorten(visible(s), maxShown), Code: true}
}

// whole is a text from outside that is not to be shortened, within reason: a
// file's name, what is wrong with a log.
func whole(s string) run { return run{Text: shorten(visible(s), 8*maxShown), Code: true} }

// grid is a table.
type grid struct {
	columns []column
	rows    [][]para
}

type column struct {
	Name  string
	Right bool // numbers
}

// columns names the columns of a table; those with a leading "#" are numbers.
func columns(names ...string) []column {
	out := make([]column, len(names))
	for i, n := range names {
		out[i].Name, out[i].Right = strings.CutPrefix(n, "#")
	}
	return out
}

// cells makes a row of strings of our own, runs and paragraphs.
func cells(parts ...any) []para {
	row := make([]para, len(parts))
	for i, part := range parts {
		if p, ok := part.(para); ok {
			row[i] = p
		} else {
			row[i] = say(part)
		}
	}
	return row
}

// bars is a plot of horizontal bars, one below the other.
type bars struct {
	title string
	items []bar
}

type bar struct {
	label run
	value int64
	text  string // the value in words
}

// stack is requests over time.
type stack struct{ timeline timeline }
