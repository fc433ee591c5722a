package audit

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Report is what Verify found up to the end, or up to the damage.
type Report struct {
	Files    int
	Records  int64
	Bytes    int64            // of the lines; of compressed files, as they were before
	Sessions int64            // starts of an engine, or of a session of the library
	Events   map[string]int64 // :: event name → records; names beyond 64 count as "other"

	Before            uint64 // records in earlier segments, which were not given
	FirstSeq, LastSeq uint64 // the records' numbers: payload.seq, where they have one; 0 where there is no record
	First, Last       string // ts of the first and the last record; a clock may go back between
	Head              string // event_hash of the last record

	// Incomplete is how many requests were allowed and have no completion: the
	// engine died or lost its disk while they ran, or they still run.
	// IncompleteIDs names the first of them, as record SEQ, session/id.
	Incomplete    int64
	IncompleteIDs []string
	// Respelled is how many records, all of the library, are spelled in another
	// way than the canonical one, over which their hash is.
	Respelled int64
	// Unasked is how many completions have no decision before them.
	Unasked int64

	// ClockJumps is how often the wall clock was set: ts goes back, or the
	// engine says so. FirstJump has the place and how far.
	ClockJumps int64
	FirstJump  string

	// Checkpoints is how many stand in the log, all of which are over exactly
	// the records before them; Signed, how many of them a given key signed. The
	// last is over the records 1 to CheckpointSize.
	Checkpoints, Signed int64
	CheckpointSize      uint64
	CheckpointTime      string

	// Anchored is how many checkpoints of the anchor the log agrees with; the
	// last is over the records 1 to AnchorSize. AnchorBefore could not be
	// compared, as they are over earlier segments alone; AnchorForeign were left
	// out, as no given key signed them.
	Anchored, AnchorBefore, AnchorForeign int64
	AnchorSize                            uint64
	AnchorTime                            string

	// Authenticated says that a given key signed the records 1 to Covered, at
	// CoveredTime. If it is false, the log is consistent, and whoever can write
	// the file can make another one that is consistent too, or cut whole records
	// off its end, unless an Anchor was compared.
	Authenticated bool
	Covered       uint64
	CoveredTime   string

	// Found is how many of those no given key had signed when the next session
	// began: behind a crash, those since the last checkpoint. They are as that
	// engine found them. FoundFirst and FoundLast are the first of them in a row.
	Found, FoundFirst, FoundLast uint64

	damaged bool // the records end with damage, and not with the log
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
	if r.Before > 0 {
		fmt.Fprintf(&b, "\nrecords 1 to %d are in earlier segments, which were not given", r.Before)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Events)) {
		fmt.Fprintf(&b, "\n%10d %s", r.Events[name], name)
	}
	r.writeOddities(&b)
	r.writeCheckpoints(&b)
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// writeOddities says what an auditor may want to ask about.
func (r *Report) writeOddities(b *strings.Builder) {
	if r.Incomplete > 0 {
		fmt.Fprintf(b, "\n%d requests were allowed and have no completion (still running, or cut by a crash):", r.Incomplete)
		for _, id := range r.IncompleteIDs {
			fmt.Fprintf(b, "\n    %s", clean(id))
		}
		if n := r.Incomplete - int64(len(r.IncompleteIDs)); n > 0 {
			fmt.Fprintf(b, "\n    and %d more", n)
		}
	}
	if r.Respelled > 0 {
		fmt.Fprintf(b, "\n%d records are in the Python library's spelling; their hashes are right over the canonical one", r.Respelled)
	}
	if r.Unasked > 0 {
		fmt.Fprintf(b, "\n%d completions have no decision before them", r.Unasked)
		if r.Before > 0 {
			b.WriteString(": it may stand in the records that were not given")
		}
	}
	if r.ClockJumps > 0 {
		fmt.Fprintf(b, "\nthe clock was set %d times, first at %s; the order of records is that of the file", r.ClockJumps, r.FirstJump)
	}
}

// writeCheckpoints says how far the log is proven, and by what.
func (r *Report) writeCheckpoints(b *strings.Builder) {
	last := r.Before + uint64(r.Records)
	if r.Checkpoints > 0 {
		fmt.Fprintf(b, "\n%d checkpoints, the last over records 1 to %d at %s", r.Checkpoints, r.CheckpointSize, r.CheckpointTime)
	}
	if r.Anchored > 0 {
		fmt.Fprintf(b, "\nanchor: %d checkpoints agree with the log, the last over records 1 to %d at %s", r.Anchored, r.AnchorSize, r.AnchorTime)
	}
	if r.AnchorBefore > 0 {
		fmt.Fprintf(b, "\nanchor: %d checkpoints are over earlier segments alone and were not compared", r.AnchorBefore)
	}
	if r.AnchorForeign > 0 {
		fmt.Fprintf(b, "\nanchor: %d checkpoints are not signed by a key that was given and were left out", r.AnchorForeign)
	}
	switch {
	case r.Authenticated:
		fmt.Fprintf(b, "\nauthenticated: records 1 to %d are signed by a key that was given, at %s", r.Covered, r.CoveredTime)
		switch n := last - r.Covered; {
		case n == 1 && r.CheckpointSize == r.Covered && r.damaged:
			b.WriteString("\nbehind them is that checkpoint, and then the damage")
		case n == 1 && r.CheckpointSize == r.Covered:
			b.WriteString("\nnothing stands behind them but that checkpoint")
		case n > 0:
			fmt.Fprintf(b, "\nnot covered yet: %d records behind them, which whoever can write the file could have changed", n)
		}
		if r.Found > 0 {
			fmt.Fprintf(b, "\nsigned as they were found: records %d to %d stood in the file when an engine started, and no key that was given had signed them; whoever could write the file until then could have changed them", r.FoundFirst, r.FoundLast)
			if n := r.Found - (r.FoundLast - r.FoundFirst + 1); n > 0 {
				fmt.Fprintf(b, ", and %d more at later starts", n)
			}
		}
	case r.Anchored > 0:
		fmt.Fprintf(b, "\nunauthenticated: no key was given to check the checkpoints with (--key); records 1 to %d are those that were anchored, as far as nobody who can write the file can write the anchor", r.AnchorSize)
		if n := last - r.AnchorSize; n > 1 || n == 1 && r.CheckpointSize != r.AnchorSize {
			fmt.Fprintf(b, "; the %d records behind them whoever can write the file could have changed, or cut off", n)
		}
	case r.Checkpoints > 0:
		b.WriteString("\nunauthenticated: no key was given to check the checkpoints with (--key); whoever can write the file could have signed it anew")
	default:
		b.WriteString("\nunauthenticated: no record is signed; whoever can write the file could have made another, or cut its end off")
	}
}
