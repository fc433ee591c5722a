package enginetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// AssertUpstreamMatchesLog fails the test unless the origins saw exactly what
// the log says: every request that arrived has its decision, with this method
// and path; every completed one its completion, with the digest and length of
// the body that arrived; and no completion speaks of what did not arrive. It
// waits for records of requests that are just ending. The harness calls it
// when each test ends.
func (e *Engine) AssertUpstreamMatchesLog(tb testing.TB) {
	tb.Helper()
	var wrong []string
	if Eventually(func() bool {
		wrong = e.mismatches(tb)
		return len(wrong) == 0
	}) {
		return
	}
	tb.Errorf("the origins did not see what the log says:\n  %s\nthe log is:\n%s", strings.Join(wrong, "\n  "), e.Dump(tb))
}

func (e *Engine) mismatches(tb testing.TB) []string {
	tb.Helper()
	var wrong []string
	for _, o := range e.origins {
		decisions := e.Find(tb, Fields{"event": "egress_allowed", "phase": "decision", "host": o.Name, "port": o.Addr.Port()})
		ends := e.Find(tb, Fields{"phase": "complete", "host": o.Name, "port": o.Addr.Port()})
		for _, w := range compare(o, decisions, ends) {
			wrong = append(wrong, o.Name+": "+w)
		}
	}
	return wrong
}

// compare matches what o saw with its decisions and completions, each of which
// stands for one request.
func compare(o *Origin, decisions, ends []Record) []string {
	seen := o.Requests()
	if slices.ContainsFunc(decisions, isTunnel) {
		// What is in a passthrough tunnel is not the engine's to know.
		if n := o.Connections(); n > len(decisions) {
			return []string{fmt.Sprintf("%d connections arrived, the log allows %d tunnels", n, len(decisions))}
		}
		return nil
	}
	var wrong []string
	for _, i := range unpaired(len(seen), len(decisions), func(i, j int) bool { return decisions[j].names(seen[i]) }) {
		wrong = append(wrong, "arrived without a decision in the log: "+seen[i].String())
	}
	allowed := slices.DeleteFunc(slices.Clone(ends), func(r Record) bool { return r.Event != "egress_allowed" })
	for _, i := range unpaired(len(allowed), len(seen), func(i, j int) bool { return allowed[i].names(seen[j]) && allowed[i].ends(seen[j]) }) {
		wrong = append(wrong, "the log completes what did not arrive: "+allowed[i].Line)
	}
	whole := slices.DeleteFunc(slices.Clone(seen), func(s Seen) bool { return !s.Complete })
	for _, i := range unpaired(len(whole), len(ends), func(i, j int) bool { return ends[j].names(whole[i]) && ends[j].ends(whole[i]) }) {
		wrong = append(wrong, fmt.Sprintf("arrived without a completion of digest %s in the log: %s", whole[i].BodySHA256, whole[i]))
	}
	return wrong
}

// unpaired returns which of n things have no partner among m others, when each
// is given one of its own that fits and as many as can be have one. Of several
// requests alike some may have failed on the way and never arrived: first come,
// first served would give such a one the arrival of another.
func unpaired(n, m int, fits func(i, j int) bool) (left []int) {
	partner := make([]int, m) // of each other, plus one; 0: none
	var tried []bool
	var pair func(i int) bool
	pair = func(i int) bool {
		for j := range m {
			if partner[j] == 0 && fits(i, j) {
				partner[j] = i + 1
				return true
			}
		}
		for j := range m {
			if !tried[j] && fits(i, j) {
				tried[j] = true
				if pair(partner[j] - 1) {
					partner[j] = i + 1
					return true
				}
			}
		}
		return false
	}
	for i := range n {
		tried = make([]bool, m)
		if !pair(i) {
			left = append(left, i)
		}
	}
	return left
}

// isTunnel reports whether r is the record of a passthrough connection, which
// has no request.
func isTunnel(r Record) bool { return r.Get("method") == "CONNECT" || r.Get("scheme") == "tunnel" }

// names reports whether r is about the request s. A rule may keep paths out of
// the log; then r has none to compare.
func (r Record) names(s Seen) bool {
	path := r.Get("path")
	return r.Get("method") == s.Method && (path == "" || path == s.Path())
}

// ends reports whether the completion r is about the body that s had. Where the
// body was cut, or frames followed it, the two saw different lengths of it.
func (r Record) ends(s Seen) bool {
	if !s.Complete || r.Get("status_code") == "101" || r.Get("truncated") == "true" || r.Get("digest_key_id") != "" {
		return true
	}
	sum, n := r.Get("request_sha256"), r.Get("request_bytes")
	if s.BodyBytes == 0 && sum == "" && (n == "" || n == "0") {
		return true
	}
	return sum == s.BodySHA256 && n == fmt.Sprint(s.BodyBytes)
}
