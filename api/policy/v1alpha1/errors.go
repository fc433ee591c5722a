package v1alpha1

import (
	"fmt"
	"strconv"
	"strings"
)

// maxErrors is how many faults of a file are reported at once.
const maxErrors = 10

// Pos is a place in a file; lines and columns count from 1. The zero value is
// no place.
type Pos struct{ Line, Column int }

// Source remembers where each field of a document was read.
type Source struct {
	File string
	at   map[string]Pos // :: field path, as in "spec.rules[0].hosts[1]" → place
}

// Pos returns the place of a field path, or of the nearest field around it.
func (s Source) Pos(field string) Pos {
	for {
		if pos, ok := s.at[field]; ok {
			return pos
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			return s.at[""]
		}
		field = field[:cut]
	}
}

// Error is one fault of a policy file.
type Error struct {
	File         string
	Line, Column int    // 0 where the policy was made in Go
	Field        string // path of the field, as in "spec.rules[0].hosts[1]"; "" for the document
	Problem      string // what is there
	Expected     string // what should be there
	Fix          string // what to do; may be ""
	Within       string // which rule of which policy, by their names; "" where the field is in no rule that has one
}

// Error gives place, field, problem, expectation and fix in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	for _, part := range []string{e.Field, e.Problem} {
		if part == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	if e.Expected != "" {
		b.WriteString("; expected " + e.Expected)
	}
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	if e.Within != "" {
		b.WriteString(" (" + e.Within + ")")
	}
	return b.String()
}

// Errors are the faults of a file in the order of their lines, at most ten.
// errors.As finds the first Error in it.
type Errors []*Error

// Error gives one fault a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, fault := range e {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the faults to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, fault := range e {
		out[i] = fault
	}
	return out
}

// ErrorAt returns a fault of the field, at the place where it was read.
func (p *AgentPolicy) ErrorAt(field, problem, expected, fix string) *Error {
	pos := p.Source.Pos(field)
	file := p.Source.File
	if file == "" {
		file = "policy " + p.Metadata.Name
	}
	return &Error{file, pos.Line, pos.Column, field, problem, expected, fix, p.within(field)}
}

// within names the rule that a field is of. Who wrote it knows its name;
// numbers are found by counting, and lines are those of a rendered file.
func (p *AgentPolicy) within(field string) string {
	text, _ := strings.CutPrefix(field, "spec.rules[")
	number, _, found := strings.Cut(text, "]")
	i, err := strconv.Atoi(number)
	if !found || err != nil || i < 0 || i >= len(p.Spec.Rules) || p.Spec.Rules[i].Name == "" {
		return ""
	}
	return "rule " + shorten(p.Spec.Rules[i].Name) + " of policy " + shorten(p.Metadata.Name)
}

// nearest returns the word of words that a typing error might have turned into
// got, or "".
func nearest(got string, words []string) string {
	best, bestDistance := "", 3
	for _, word := range words {
		if strings.EqualFold(got, word) || strings.EqualFold(got+"s", word) {
			return word
		}
		if d := distance(strings.ToLower(got), strings.ToLower(word)); d < bestDistance && d < len(word)-1 {
			best, bestDistance = word, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance (insert, delete, replace, swap
// neighbours) of two short words; longer ones are far apart.
func distance(a, b string) int {
	const tooLong = 40
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}
	var d [tooLong + 1][tooLong + 1]int
	for i := range len(a) + 1 {
		d[i][0] = i
	}
	for j := range len(b) + 1 {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
