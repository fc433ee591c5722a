package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Format says how Show prints a record.
type Format uint8

// The formats.
const (
	Table Format = iota // a line of columns for people; control characters are escaped
	JSON                // Entry.JSON, one object a line
	Raw                 // the line as it stands in the file
)

// Filter selects records. All fields that are set must match; the zero value
// takes everything.
type Filter struct {
	Host    string    // exact, or "*.example.com" for any depth below
	Verdict string    // allowed, denied or error
	Rule    string    // exact
	Reason  string    // exact
	Agent   string    // agent_identity, claimed, namespace, or namespace/service_account
	Since   time.Time // ts at or after; records whose ts cannot be read are left out
	Until   time.Time // ts before; likewise
	FromSeq uint64    // payload.seq at least; records without one are left out
	ToSeq   uint64    // payload.seq at most; likewise
}

// Check reports a filter that can match nothing.
func (f *Filter) Check() error {
	switch f.Verdict {
	case "", "allowed", "denied", "error":
	default:
		return fmt.Errorf("verdict %q: use allowed, denied or error", f.Verdict)
	}
	switch {
	case !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until):
		return fmt.Errorf("nothing is both since %s and before %s: the first must be the earlier",
			f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339))
	case f.ToSeq != 0 && f.FromSeq > f.ToSeq:
		return fmt.Errorf("seq %d-%d: the first number must be the smaller", f.FromSeq, f.ToSeq)
	}
	return nil
}

// Match reports whether e is selected.
func (f *Filter) Match(e *Entry) bool {
	return (f.Host == "" || matchHost(f.Host, e.Host)) &&
		(f.Verdict == "" || e.Event == "egress_"+f.Verdict) &&
		(f.Rule == "" || e.Rule == f.Rule) &&
		(f.Reason == "" || e.Reason == f.Reason) &&
		(f.Agent == "" || matchAgent(f.Agent, e)) &&
		(f.Since.IsZero() || !e.Time.IsZero() && !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || !e.Time.IsZero() && e.Time.Before(f.Until)) &&
		e.Seq >= f.FromSeq && (f.ToSeq == 0 || e.Seq != 0 && e.Seq <= f.ToSeq)
}

// stop returns errStop where no record behind e can match, since seq rises from
// record to record: one record out of a gigabyte is found without its rest.
func (f *Filter) stop(e *Entry) error {
	if f.ToSeq != 0 && e.Seq >= f.ToSeq {
		return errStop
	}
	return nil
}

func matchHost(want, host string) bool {
	want = strings.ToLower(want)
	if suffix, ok := strings.CutPrefix(want, "*"); ok && strings.HasPrefix(suffix, ".") {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return want == host
}

func matchAgent(want string, e *Entry) bool {
	return want == e.AgentIdentity || want == e.Claimed || want == e.Namespace ||
		want == e.Namespace+"/"+e.ServiceAccount
}

// ShowOptions says what Show prints and how.
type ShowOptions struct {
	Format Format
	Filter Filter
}

// Show prints the records of r that the filter selects. It does not verify
// the chain.
func Show(w io.Writer, r io.Reader, o ShowOptions) error {
	if err := o.Filter.Check(); err != nil {
		return err
	}
	bw := bufio.NewWriter(w)
	err := Read(r, func(e *Entry) error {
		if !o.Filter.Match(e) {
			return o.Filter.stop(e)
		}
		line, err := e.Format(o.Format)
		if err != nil {
			return err
		}
		_, _ = bw.Write(line) // a failed write shows in WriteByte, and in Flush
		if err := bw.WriteByte('\n'); err != nil {
			return err
		}
		return o.Filter.stop(e)
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	if ferr := bw.Flush(); err == nil {
		err = ferr
	}
	return err
}

// Format returns the entry as a line of the format f, without the newline.
func (e *Entry) Format(f Format) ([]byte, error) {
	switch f {
	case JSON:
		return e.JSON()
	case Raw:
		return e.Raw, nil
	default:
		return []byte(e.row()), nil
	}
}

// row is the entry in one line: seq, time, event and phase, agent, then what
// there is of method, target, status, reason, rule, sizes.
func (e *Entry) row() string {
	what := strings.TrimPrefix(e.Event, "egress_")
	if e.Phase == "complete" {
		what += "/end"
	}
	cols := []string{fmt.Sprintf("%6d %s %-12s %s", e.Seq, clean(e.TS), clean(what), clean(e.AgentIdentity))}
	add := func(name, v string) {
		if v != "" {
			cols = append(cols, name+clean(v))
		}
	}
	number := func(name string, v int64, unit string) {
		if v != 0 {
			cols = append(cols, name+strconv.FormatInt(v, 10)+unit)
		}
	}
	add("", e.Method)
	add("", e.target())
	add("?", strings.Join(e.QueryKeys, "&"))
	number("status ", e.StatusCode, "")
	add("reason ", e.Reason)
	add("rule ", e.Rule)
	number("sent ", e.RequestBytes, "B")
	number("received ", e.ResponseBytes, "B")
	if e.Truncated {
		cols = append(cols, "CUT OFF")
	}
	number("", e.DurationMS, "ms")
	number("attempt ", e.Attempt, "")
	number("times ", e.Count, "")
	add("from ", e.First)
	add("to ", e.Last)
	number("clock set by ", e.ClockJumpMS, "ms")
	if e.Observed {
		cols = append(cols, "OBSERVED")
	}
	if e.Resumed {
		cols = append(cols, "resumed")
	}
	add("continues ", e.Segment)
	if e.Torn != nil {
		cols = append(cols, "torn end of "+strconv.FormatInt(e.Torn.Bytes, 10)+"B kept in "+clean(e.Torn.File))
	}
	add("", e.Detail)
	return strings.Join(cols, "  ")
}

// target is scheme, host, port and path as far as the record has them.
func (e *Entry) target() string {
	var b strings.Builder
	if e.Scheme != "" {
		b.WriteString(e.Scheme + "://")
	}
	b.WriteString(e.Host)
	if e.Port != 0 && (e.Scheme != "https" || e.Port != 443) && (e.Scheme != "http" || e.Port != 80) {
		b.WriteString(":" + strconv.Itoa(int(e.Port)))
	}
	b.WriteString(e.Path + e.PathPattern)
	if e.PathLen > 0 {
		b.WriteString("…")
	}
	return b.String()
}

// clean escapes what a terminal would act on: control and format characters
// (ESC, U+2028, bidirectional marks) and bytes that are not UTF-8.
func clean(s string) string {
	safe := func(r rune) bool {
		return r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r) && r != unicode.ReplacementChar
	}
	if strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	q := strconv.QuoteToGraphic(s)
	return q[1 : len(q)-1]
}
