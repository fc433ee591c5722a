// Package report says what an audit log shows, for an auditor: as Markdown, or
// as one HTML page that needs nothing else.
//
// Gather verifies the log (audit.Verify), reads the same records once more and
// aggregates them in bounded memory; Markdown and HTML render what came of it.
// A log that does not verify is refused unless Options.Unverified, and the
// report then says so in large letters. What was verified is what is reported:
// reading ends with the record that Verify ended with, and the two must agree
// about its hash.
//
// # What is counted
//
// A request is counted once, where it was decided, by what became of it:
//
//	allowed   forwarded because a rule says so
//	observed  forwarded though the policy says no (mode: observe)
//	denied    not forwarded, by the decision or after it (an address inside)
//	failed    not forwarded, or broken off, by an error
//
// A record that stands for many refusals counts as many. A second attempt at a
// request is no second request. Bytes are those of bodies, or of what went
// through a tunnel, as completions have them. A record without a phase, as the
// aegrail Python library writes them, is a decision.
//
// # Untrusted text
//
// Hosts, paths, names, reasons and details come from agents, from servers, or
// from whoever wrote the log. They are shown in ASCII alone, everything else as
// Go would escape it (\n, \u202e, \xff, \\), always as code, so that no text of
// theirs can be a tag, a link, a table's edge, a direction or another letter
// that looks the same. The only character in them that is not ASCII is the
// ellipsis that stands where text was left out, which they cannot contain.
// The page is made by html/template, has no script, and its
// Content-Security-Policy forbids everything but its own style.
//
// # Limits
//
// The constants below bound what is kept. What exceeds a bound is counted
// together, and the report says so where it matters. A host that an agent
// makes up has to be allowed before it takes a place among the allowed ones.
package report

const (
	maxPairs     = 10_000  // agents and hosts, hosts, targets of denials, rules: of each kind
	maxAgents    = 1_000   // agents told apart
	maxReasons   = 256     // reasons told apart
	maxSessions  = 500     // starts of an engine that are listed
	maxRevisions = 500     // policy revisions that are listed
	maxEvents    = 64      // names of events told apart
	maxPaths     = 1_000   // distinct paths that are counted for one agent and host
	maxAllPaths  = 1 << 18 // … and for all of them together: 262144
	maxPending   = 1 << 16 // requests without a completion that are followed
	maxListed    = 20      // single records that a list names
	maxTop       = 10      // slowest and biggest requests
	maxClaims    = 5       // different claims that are named for one agent
	maxExamples  = 4       // records that are named as examples
	maxBuckets   = 96      // bars of the plot over time
	maxBars      = 12      // bars of the other plots
	maxRows      = 50      // rows of a table
	maxTimes     = 1 << 32 // refusals that one record is taken to stand for
	maxText      = 512     // bytes of one text that are kept
	maxShown     = 120     // characters of one text that are shown
	maxLabel     = 34      // … beside a bar
)
