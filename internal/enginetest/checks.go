package enginetest

import (
	"os"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// What must hold in every test, whatever it is about.

// checkLookup notes a name that was looked up before a decision about it was in
// the log: a lookup is a message (promise 2).
func (e *Engine) checkLookup(host string) {
	if e.decided(func(r Record) bool { return r.Get("host") == host }) == 0 {
		e.problem("%s was looked up before a decision about it was in the log", host)
	}
}

// checkArrival notes a request that reached an origin before its decision was
// in the log.
func (e *Engine) checkArrival(o *Origin, s Seen) {
	arrived := 0
	for _, other := range o.Requests() {
		if other.Method == s.Method && other.Path() == s.Path() {
			arrived++
		}
	}
	decided := e.decided(func(r Record) bool {
		return r.Get("host") == o.Name && (isTunnel(r) || r.names(s))
	})
	tunnels := e.decided(func(r Record) bool { return r.Get("host") == o.Name && isTunnel(r) })
	if decided < arrived && tunnels == 0 {
		e.problem("%s reached %s before its decision was in the log (%d arrived, %d decided)", s, o.Name, arrived, decided)
	}
}

// decided counts the decisions to allow that are in the log and that match.
func (e *Engine) decided(match func(Record) bool) int {
	records, err := e.log.read()
	if err != nil {
		e.problem("reading the audit log: %v", err)
	}
	n := 0
	for _, r := range records {
		if r.Event == "egress_allowed" && r.Get("phase") == "decision" && match(r) {
			n++
		}
	}
	return n
}

// VerifyLog verifies the log as it is now, by package audit and by VerifyChain.
func (e *Engine) VerifyLog(tb testing.TB) []Record {
	tb.Helper()
	data, err := os.ReadFile(e.LogFile)
	if err != nil {
		tb.Errorf("reading the audit log: %v", err)
		return nil
	}
	records, err := VerifyChain(data)
	if err != nil {
		tb.Errorf("the log does not verify: %v\n%s", err, data)
	}
	report, err := audit.Verify([]string{e.LogFile}, audit.VerifyOptions{})
	if err != nil {
		tb.Errorf("audit.Verify: %v", err)
	}
	if report.Records != int64(len(records)) {
		tb.Errorf("audit.Verify counts %d records, there are %d", report.Records, len(records))
	}
	return records
}
