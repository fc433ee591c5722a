package audit

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// VerifyOptions says where Verify reads from.
type VerifyOptions struct {
	Stdin io.Reader // what the file name "-" stands for; nil: no such file
}

// Report is what Verify found up to the end, or up to the damage.
type Report struct {
	Files    int
	Records  int64
	Bytes    int64
	Sessions int64            // starts of an engine, or of a session of the library
	Events   map[string]int64 // :: event name → records; names beyond 64 count as "other"

	FirstSeq, LastSeq uint64 // the records' numbers: payload.seq, where they have one; 0 where there is no record
	First, Last       string // ts of the first and the last record; a clock may go back between
	Head              string // event_hash of the last record

	// Incomplete is how many requests were allowed and have no completion: the
	// engine died or lost its disk while they ran, or they still run.
	// IncompleteIDs names the first of them, as session/id.
	Incomplete    int64
	IncompleteIDs []string
	// Respelled is how many records, all of the library, are spelled in another
	// way than the canonical one, over which their hash is.
	Respelled int64
	// Unasked is how many completions have no decision before them.
	Unasked int64

	// Authenticated is false: nothing in the log is signed, so a log that
	// verifies is consistent, and whoever can write the file can make another
	// one that is consistent too, or cut whole records off its end.
	Authenticated bool
}

// Limits of what Verify keeps.
const (
	maxEventNames = 64
	maxIncomplete = 1 << 16 // requests in flight that are told apart
	maxNamed      = 20      // … that a Report names
)

// Verify reads the files as one log, in the order given, and checks every
// line: its form (the package comment), its hash, that it continues the line
// before it across files, and payload.seq where there is one. It holds one line
// and the ids of requests in flight in memory, whatever the size of the files.
//
// The error is a *Damage that names the first bad line, or that of reading a
// file; the Report then covers what stands before it.
func Verify(files []string, o VerifyOptions) (Report, error) {
	v := verifier{chain: newFollower(), open: map[string]struct{}{}}
	v.report.Events = map[string]int64{}
	if len(files) == 0 {
		return v.report, fmt.Errorf("verifying an audit log: no file given")
	}
	for _, name := range files {
		if err := v.file(name, o.Stdin); err != nil {
			v.end()
			return v.report, err
		}
	}
	v.end()
	return v.report, nil
}

type verifier struct {
	report  Report
	chain   *follower
	session string
	open    map[string]struct{} // :: id of an allowed request → no completion yet
}

func (v *verifier) file(name string, stdin io.Reader) error {
	r := stdin
	if name != "-" || stdin == nil {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("verifying an audit log: %w", err)
		}
		defer f.Close()
		r = f
	}
	good, err := eachLine(name, r, v.line)
	v.report.Files++
	v.report.Bytes += good
	return err
}

func (v *verifier) line(b []byte) error {
	if err := v.chain.next(b); err != nil {
		return err
	}
	r, l := &v.report, &v.chain.line
	r.Records++
	if r.Records == 1 {
		r.First = string(l.ts)
	}
	r.FirstSeq, r.LastSeq = v.chain.first, v.chain.seq
	r.Last = string(l.ts) // kept for the last line alone, but short
	if n, ok := r.Events[string(l.event)]; ok || len(r.Events) < maxEventNames {
		r.Events[string(l.event)] = n + 1
	} else {
		r.Events["other"]++
	}
	if string(l.session) != v.session {
		v.settle()
		v.session = string(l.session)
		r.Sessions++
	}
	v.follow(l)
	return nil
}

// follow pairs decisions with completions.
func (v *verifier) follow(l *line) {
	if l.id == nil {
		return
	}
	switch string(l.phase) {
	case `"decision"`:
		if string(l.event) != "egress_allowed" {
			return
		}
		if len(v.open) < maxIncomplete {
			v.open[string(l.id)] = struct{}{}
		}
	case `"complete"`:
		if _, ok := v.open[string(l.id)]; !ok && len(v.open) < maxIncomplete {
			v.report.Unasked++
		}
		delete(v.open, string(l.id))
	}
}

// settle counts what a session left open: ids are one session's own.
func (v *verifier) settle() {
	v.report.Incomplete += int64(len(v.open))
	for _, id := range slices.Sorted(maps.Keys(v.open)) {
		if len(v.report.IncompleteIDs) == maxNamed {
			break
		}
		v.report.IncompleteIDs = append(v.report.IncompleteIDs, v.session+"/"+strings.Trim(id, `"`))
	}
	clear(v.open)
}

func (v *verifier) end() {
	v.settle()
	v.report.Respelled = v.chain.spell.lines
	if v.chain.has {
		v.report.Head = string(v.chain.prev[:])
	}
}

// Write renders r for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d records in %d files, %d bytes, %d sessions", r.Records, r.Files, r.Bytes, r.Sessions)
	if r.LastSeq > 0 {
		fmt.Fprintf(&b, ", seq %d to %d", r.FirstSeq, r.LastSeq)
	}
	if r.Records > 0 {
		fmt.Fprintf(&b, "\nfrom %s to %s\nhead %s", r.First, r.Last, r.Head)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Events)) {
		fmt.Fprintf(&b, "\n%10d %s", r.Events[name], name)
	}
	if r.Incomplete > 0 {
		fmt.Fprintf(&b, "\n%d requests were allowed and have no completion (still running, or cut by a crash):", r.Incomplete)
		for _, id := range r.IncompleteIDs {
			fmt.Fprintf(&b, "\n    %s", id)
		}
		if n := r.Incomplete - int64(len(r.IncompleteIDs)); n > 0 {
			fmt.Fprintf(&b, "\n    and %d more", n)
		}
	}
	if r.Respelled > 0 {
		fmt.Fprintf(&b, "\n%d records are in the Python library's spelling; their hashes are right over the canonical one", r.Respelled)
	}
	if r.Unasked > 0 {
		fmt.Fprintf(&b, "\n%d completions have no decision before them", r.Unasked)
	}
	if !r.Authenticated {
		b.WriteString("\nunauthenticated: no record is signed; whoever can write the file could have made another, or cut its end off")
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}
