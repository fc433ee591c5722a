package report

import (
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"time"
)

//go:embed page.html
var pageSource string

//go:embed style.css
var styleSource string

// HTML writes the report as one page. It refers to nothing outside itself, has
// no script, and its Content-Security-Policy allows its style sheet alone.
func (r *Report) HTML(w io.Writer) error {
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return fmt.Errorf("the page of the report: %w", err)
	}
	if err := t.Execute(w, viewOf(r.document())); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// view is the document as page.html looks at it.
type view struct {
	Title, StyleHash string
	Style            template.CSS
	Verified         bool
	Banner, Cautions []para
	Notes            []para
	Facts            []fact
	Findings         []viewFinding
	Sections         []viewSection
}

type viewFinding struct {
	Text    para
	Section string
}

type viewSection struct {
	ID, Title string
	Intro     []para
	Parts     []viewPart
}

type viewPart struct {
	Heading string
	Plot    *viewPlot
	Bars    *viewBars
	Grid    *viewGrid
	Notes   []para
}

// viewGrid is a table; a plain one has no head and its first column names the
// row.
type viewGrid struct {
	Plain   bool
	Columns []column
	Rows    [][]viewCell
}

type viewCell struct {
	Name  string // of the column, for narrow screens
	Right bool
	Text  para
}

func viewOf(d *document) view {
	sum := sha256.Sum256([]byte(styleSource))
	v := view{
		Title: d.title, Style: template.CSS(styleSource), StyleHash: base64.StdEncoding.EncodeToString(sum[:]), //nolint:gosec // our own file
		Verified: d.verified, Banner: d.banner, Cautions: d.cautions, Notes: d.notes, Facts: d.facts,
	}
	for _, f := range d.findings {
		v.Findings = append(v.Findings, viewFinding{f.text, f.section})
	}
	for _, s := range d.sections {
		vs := viewSection{ID: s.id, Title: s.title, Intro: s.intro}
		for _, p := range s.parts {
			vs.Parts = append(vs.Parts, viewPart{Heading: p.heading, Plot: p.stack.view(), Bars: p.bars.view(s.id), Grid: p.grid.view(), Notes: p.notes})
		}
		v.Sections = append(v.Sections, vs)
	}
	return v
}

func (g *grid) view() *viewGrid {
	if g == nil {
		return nil
	}
	v := &viewGrid{Columns: g.columns, Plain: g.columns[0].Name == ""}
	for _, row := range g.rows {
		var cells []viewCell
		for i, c := range row {
			cells = append(cells, viewCell{g.columns[i].Name, g.columns[i].Right, c})
		}
		v.Rows = append(v.Rows, cells)
	}
	return v
}

// The plots. Widths are percentages, so that text keeps its size on a phone and
// on paper; heights are pixels.

type viewBars struct {
	Title, Class string
	Height       int
	Rows         []viewBar
}

type viewBar struct {
	Label, Value string
	Code         bool
	TextY, Y     int
	W            string // percent
}

func (b *bars) view(section string) *viewBars {
	if b == nil {
		return nil
	}
	const rowHeight = 34
	v := &viewBars{Title: b.title, Class: allowed.String(), Height: rowHeight * len(b.items)}
	if section == "denials" {
		v.Class = denied.String()
	}
	most := int64(1)
	for _, it := range b.items {
		most = max(most, it.value)
	}
	for i, it := range b.items {
		v.Rows = append(v.Rows, viewBar{
			Label: shorten(it.label.Text, maxLabel), Code: it.label.Code, Value: it.text,
			TextY: i*rowHeight + 13, Y: i*rowHeight + 18, W: percent(max(float64(it.value)/float64(most), .004)),
		})
	}
	return v
}

type viewPlot struct {
	Label             string
	Legend            []string
	Height, AxisWidth int
	Bottom            int
	Lines             []viewLine
	Columns           []viewColumn
	Ticks             []viewTick
}

type viewLine struct {
	Y    string
	Text string
}

type viewColumn struct {
	Title      string
	X, W, Slot string // percent
	Pieces     []viewPiece
}

type viewPiece struct{ Class, Y, H string }

type viewTick struct {
	X, Anchor, Text string
	Wide            bool // left out on a narrow screen
}

const (
	plotTop    = 10  // px above the highest line
	plotBottom = 190 // px, where the bars stand
	plotHeight = 216
)

func (s *stack) view() *viewPlot {
	if s == nil {
		return nil
	}
	t := &s.timeline
	n := t.max - t.min + 1
	slots := max(n, 12) // a few bars are not made as wide as the page
	var most int64
	for _, row := range t.rows {
		most = max(most, sum(row))
	}
	scale := nice(most)
	y := func(v int64) float64 { return plotBottom - float64(v)/float64(scale)*(plotBottom-plotTop) }
	v := &viewPlot{
		Label:  fmt.Sprintf("Requests from %s on, by verdict; at most %s in %s", t.start(t.min).Format(t.form()), number(most), t.unit()),
		Height: plotHeight, Bottom: plotBottom, AxisWidth: 16 + 7*len(number(scale)),
	}
	for kind := range verdicts {
		v.Legend = append(v.Legend, kind.String())
	}
	lines := []int64{0, scale / 2, scale}
	if scale%2 != 0 {
		lines = []int64{0, scale}
	}
	for _, at := range lines {
		v.Lines = append(v.Lines, viewLine{pixels(y(at)), number(at)})
	}
	for key := t.min; key <= t.max; key++ {
		if row := t.rows[key]; row != nil && sum(row) > 0 {
			v.Columns = append(v.Columns, columnOf(t, key, slots, row, y))
		}
	}
	v.ticks(t, n, slots)
	return v
}

func columnOf(t *timeline, key, slots int64, row *[verdicts]int64, y func(int64) float64) viewColumn {
	slot := 1 / float64(slots)
	c := viewColumn{X: percent(float64(key-t.min) * slot), W: percent(slot * .86), Slot: percent(slot)}
	c.Title = t.start(key).Format(t.form())
	var below int64
	for kind, n := range row {
		if n <= 0 {
			continue
		}
		name := verdict(kind).String()
		c.Title += fmt.Sprintf(", %s %s", number(n), name)
		c.Pieces = append(c.Pieces, viewPiece{name, pixels(y(below + n)), pixels(y(below) - y(below+n))})
		below += n
	}
	return c
}

// ticks names up to five bars below the plot.
func (v *viewPlot) ticks(t *timeline, n, slots int64) {
	step := max((n+3)/4, (slots+4)/5) // so that they do not touch
	for i := int64(0); i < n; i += step {
		tick := viewTick{X: percent(float64(i) / float64(slots)), Anchor: "start", Text: tickText(t, i, step), Wide: i != 0 && i != 2*step}
		v.Ticks = append(v.Ticks, tick)
	}
}

// tickText is the date where it is the first of its day among the ticks, else
// the time.
func tickText(t *timeline, i, step int64) string {
	at := t.start(t.min + i)
	switch {
	case t.width >= 86400:
		return at.Format("2006-01-02")
	case i > 0 && t.start(t.min+i-step).Truncate(24*time.Hour).Equal(at.Truncate(24*time.Hour)):
		if t.width < 60 {
			return at.Format("15:04:05")
		}
		return at.Format("15:04")
	case t.width < 60:
		return at.Format("01-02 15:04:05")
	default:
		return at.Format("01-02 15:04")
	}
}

func sum(row *[verdicts]int64) (n int64) {
	for _, v := range row {
		n += max(v, 0)
	}
	return n
}

// nice is the least of 1, 2, 4, 5, 10, 20, 40, 50, 100 … that is at least n.
func nice(n int64) int64 {
	for p := int64(1); ; p *= 10 {
		for _, m := range []int64{1, 2, 4, 5} {
			if p*m >= n || p > 1<<58 {
				return max(p*m, n)
			}
		}
	}
}

func percent(v float64) string { return strconv.FormatFloat(100*v, 'f', 3, 64) }
func pixels(v float64) string  { return strconv.FormatFloat(v, 'f', 2, 64) }
