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
	for _, s := range seen {
		i := slices.IndexFunc(decisions, func(r Record) bool { return r.names(s) })
		if i < 0 {
			wrong = append(wrong, "arrived without a decision in the log: "+s.String())
			continue
		}
		decisions = slices.Delete(slices.Clone(decisions), i, i+1)
	}
	for _, r := range ends {
		i := slices.IndexFunc(seen, func(s Seen) bool { return r.names(s) && r.ends(s) })
		if i >= 0 {
			seen = slices.Delete(slices.Clone(seen), i, i+1)
		} else if r.Event == "egress_allowed" {
			wrong = append(wrong, "the log completes what did not arrive: "+r.Line)
		}
	}
	for _, s := range seen {
		if s.Complete {
			wrong = append(wrong, fmt.Sprintf("arrived without a completion of digest %s in the log: %s", s.BodySHA256, s))
		}
	}
	return wrong
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
