package report

import (
	"fmt"
	"strconv"
)

// What stands at the top: how far what follows can be relied on.

// banner is what verifying found; the first paragraph is the headline.
func (r *Report) banner() []para {
	p := &r.proof
	switch {
	case r.damage != nil:
		b := []para{
			say("NOT VERIFIED: the log is damaged"),
			say("What follows counts records that nobody can rely on: from the damage on, they may have been changed, added or removed. Made with --unverified."),
			say("The damage: ", whole(r.damage.Error()), ". ", plural(p.Records, "record")+" before it verify."),
		}
		for _, err := range r.unread {
			b = append(b, say("Not read from here on: ", whole(err.Error()), "."))
		}
		return b
	case p.Records == 0:
		return []para{say("VERIFIED: the log is empty")}
	}
	headline := say("VERIFIED: ", plural(p.Records, "record")+", each one unchanged and in its place")
	if !p.Authenticated && p.Anchored == 0 { // whoever made all of them anew made them so too
		headline = say("CONSISTENT: ", plural(p.Records, "record")+", each one continues the one before")
	}
	b := []para{
		headline,
		say("The chain of hashes is whole from the first record to the last, whose event_hash is ", logged(p.Head), "."),
	}
	if p.Authenticated {
		b = append(b, say("AUTHENTICATED: a key that was given signed the records 1 to "+strconv.FormatUint(p.Covered, 10)+", at ", logged(p.CoveredTime), "."))
	}
	if p.Anchored > 0 {
		b = append(b, say("ANCHORED: "+plural(p.Anchored, "checkpoint")+" that were kept elsewhere agree with the log, the last over the records 1 to "+
			strconv.FormatUint(p.AnchorSize, 10)+", at ", logged(p.AnchorTime), "."))
	}
	return b
}

// cautions are what verifying could not say.
func (r *Report) cautions() (out []para) {
	p := &r.proof
	if r.damage != nil || p.Records == 0 {
		return nil
	}
	if p.Before > 0 {
		out = append(out, say(fmt.Sprintf("INCOMPLETE: the records 1 to %d are in earlier files, which were not given. They are not in this report.", p.Before)))
	}
	behind := int64(p.Before) + p.Records - int64(p.Covered)
	switch {
	case p.Authenticated && behind == 1 && p.CheckpointSize == p.Covered: // that checkpoint's own record
	case p.Authenticated && behind > 0:
		out = append(out, say("NOT SIGNED YET: "+plural(behind, "record")+" behind the last signed checkpoint. Whoever can write the files could have changed them, or cut them off."))
	}
	switch {
	case p.Found > 0:
		out = append(out, say(fmt.Sprintf("SIGNED AS FOUND: "+plural(int64(p.Found), "record")+", the first of them %d to %d, stood in the log unsigned when an engine started and went on from them. ", p.FoundFirst, p.FoundLast)+
			"A crash leaves the last few so. Whoever could write the files until then could have changed them."))
	case p.Authenticated:
	case p.Anchored > 0:
		out = append(out, say("UNAUTHENTICATED: no key to check signatures with was given. The records 1 to "+strconv.FormatUint(p.AnchorSize, 10)+
			" are those that were anchored, as far as nobody who can write the files can write the anchor."))
		if n := int64(p.Before) + p.Records - int64(p.AnchorSize); n > 1 || n == 1 && p.CheckpointSize != p.AnchorSize {
			out = append(out, say("NOT ANCHORED YET: "+plural(n, "record")+" behind them. Whoever can write the files could have changed them, or cut them off."))
		}
	case p.Checkpoints > 0:
		out = append(out, say("UNAUTHENTICATED: the log has "+plural(p.Checkpoints, "checkpoint")+", and no key to check their signatures with was given. "+
			"Whoever can write the files could have signed another log, or cut whole records off its end."))
	default:
		out = append(out, say("UNAUTHENTICATED: no signature was checked. Whoever can write the files could have made another log that verifies, or cut whole "+
			"records off its end. Compare the last event_hash with one that was kept elsewhere."))
	}
	if p.AnchorForeign > 0 {
		out = append(out, say(plural(p.AnchorForeign, "checkpoint")+" of the anchor were left out: no key that was given signed them."))
	}
	return out
}
