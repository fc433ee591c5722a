package report

import (
	"bufio"
	"io"
	"strings"
)

// Markdown is for GitHub's dialect, which has tables. The rules are: a text
// from the log stands in a code span, has no newline (visible) and none of the
// characters that could end the span, the cell or the line of code, or that a
// careless program would take for HTML; our own words are escaped too.

// Markdown writes the report as Markdown.
func (r *Report) Markdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	m := markdown{b}
	m.document(r.document())
	return b.Flush()
}

// markdown writes to a buffer whose Flush has the error.
type markdown struct{ w *bufio.Writer }

func (m markdown) line(parts ...string) {
	for _, p := range parts {
		_, _ = m.w.WriteString(p)
	}
	_ = m.w.WriteByte('\n')
}

func (m markdown) document(d *document) {
	m.line("# ", d.title)
	m.line()
	if !d.verified {
		m.line("# ", mdText(d.banner[0]))
		m.line()
	} else {
		m.line("> **", mdText(d.banner[0]), "**")
	}
	for i, p := range d.banner[1:] {
		if i > 0 || d.verified {
			m.line(">")
		}
		m.line("> ", mdText(p))
	}
	for _, p := range d.cautions {
		m.line(">")
		m.line("> ", mdText(p))
	}
	m.line()
	var names, rule, values []string
	for _, f := range d.facts {
		names, rule, values = append(names, f.Name), append(rule, "---:"), append(values, f.Value)
	}
	for _, row := range [][]string{names, rule, values} {
		m.line("| ", strings.Join(row, " | "), " |")
	}
	m.line()
	m.line("## What deserves a look")
	m.line()
	for _, f := range d.findings {
		m.line("- [", mdText(f.text), "](#", anchor(d.titleOf(f.section)), ")")
	}
	if len(d.findings) == 0 {
		m.line("Nothing.")
	}
	m.line()
	for _, s := range d.sections {
		m.section(&s)
	}
	m.line("## How to read this")
	m.line()
	for _, p := range d.notes {
		m.line("- ", mdText(p))
	}
}

// titleOf is the title of the section with that id.
func (d *document) titleOf(id string) string {
	for _, s := range d.sections {
		if s.id == id {
			return s.title
		}
	}
	return ""
}

// anchor is what a heading's link is called.
func anchor(title string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-':
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (m markdown) section(s *section) {
	m.line("## ", s.title)
	m.line()
	m.paragraphs(s.intro)
	for i := range s.parts {
		p := &s.parts[i]
		if p.heading != "" {
			m.line("### ", p.heading)
			m.line()
		}
		if p.bars != nil {
			m.bars(p.bars)
		}
		if p.stack != nil {
			m.stack(p.stack)
		}
		if p.grid != nil {
			m.grid(p.grid)
		}
		m.paragraphs(p.notes)
	}
}

func (m markdown) paragraphs(ps []para) {
	for _, p := range ps {
		m.line(mdText(p))
		m.line()
	}
}

func (m markdown) grid(g *grid) {
	head, rule := "|", "|"
	for _, c := range g.columns {
		name := c.Name
		if name == "" {
			name = " "
		}
		head += " " + name + " |"
		if c.Right {
			rule += " ---: |"
		} else {
			rule += " --- |"
		}
	}
	m.line(head)
	m.line(rule)
	for _, row := range g.rows {
		line := "|"
		for _, c := range row {
			line += " " + mdText(c) + " |"
		}
		m.line(line)
	}
	m.line()
}

// bars draws a plot in letters.
func (m markdown) bars(b *bars) {
	m.line("**", b.title, "**")
	m.line()
	m.line("```text")
	for _, it := range b.items {
		label := shorten(mdCode(it.label.Text), maxLabel)
		m.line(label, strings.Repeat(" ", maxLabel-len([]rune(label))), " ", strings.Repeat("█", width(it.value, b.items[0].value, 40)), " ", it.text)
	}
	m.line("```")
	m.line()
}

// width is how many of full a value takes, at least one.
func width(value, most int64, full int) int {
	return max(1, int(float64(value)/float64(max(most, 1))*float64(full)))
}

// stack writes what the plot over time has as a table, in fewer and wider rows.
func (m markdown) stack(s *stack) {
	t := s.timeline.coarse(24)
	g := &grid{columns: columns("From (rows of "+t.unit()+")", "#Allowed", "#Observed", "#Denied", "#Failed")}
	for key := t.min; key <= t.max; key++ {
		row := t.rows[key]
		if row == nil {
			continue
		}
		g.rows = append(g.rows, cells(t.start(key).Format(t.form()), number(row[allowed]), number(row[observed]), number(row[denied]), number(row[failed])))
	}
	m.grid(g)
}

// mdText renders a sentence or a cell.
func mdText(p para) string {
	var b strings.Builder
	for _, r := range p {
		switch {
		case r.Code:
			b.WriteString("`" + mdCode(r.Text) + "`")
		case r.Mark:
			b.WriteString("**" + ours().Replace(r.Text) + "**")
		default:
			b.WriteString(ours().Replace(r.Text))
		}
	}
	return b.String()
}

// mdCode replaces what must not stand in a code span within a table's cell by
// the escapes that visible would have used.
func mdCode(s string) string {
	s = strings.NewReplacer("`", `\x60`, "|", `\x7c`, "<", `\x3c`, ">", `\x3e`, "&", `\x26`).Replace(s)
	if strings.HasPrefix(s, " ") { // a code span loses a space at both ends
		s = `\x20` + s[1:]
	}
	if strings.HasSuffix(s, " ") {
		s = s[:len(s)-1] + `\x20`
	}
	return s
}

// ours escapes our own words: what would otherwise be markup in them.
func ours() *strings.Replacer {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "|", `\|`, "<", `\<`, "[", `\[`)
}
