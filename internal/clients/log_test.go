package clients

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// entry is what the suite reads of a record, as `audit show --json` prints it.
type entry struct {
	Event      string `json:"event"`
	Phase      string `json:"phase"`
	ID         string `json:"id"`
	Method     string `json:"method"`
	Scheme     string `json:"scheme"`
	Host       string `json:"host"`
	Port       int    `json:"port"`
	Path       string `json:"path"`
	Reason     string `json:"reason"`
	StatusCode int    `json:"status_code"`
	Count      int    `json:"count"`
}

// url is the request's target, default ports left out.
func (e entry) url() string {
	port := fmt.Sprintf(":%d", e.Port)
	if e.Scheme == "https" && e.Port == 443 || e.Scheme == "http" && e.Port == 80 {
		port = ""
	}
	if e.Scheme == "" {
		return e.Host + port
	}
	return e.Scheme + "://" + e.Host + port + e.Path
}

// tally counts equal lines.
type tally map[string]int

func (t tally) String() string {
	var b strings.Builder
	for _, line := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "\t%4d × %s\n", t[line], line)
	}
	return b.String()
}

// times is a line that is wanted n times.
func times(n int, line string) []string { return slices.Repeat([]string{line}, n) }

// check verifies every log and compares what they say with want: lines like
//
//	GET https://models.test/hello 200
//	denied path_not_allowed GET https://models.test/secret
//	error * POST https://grpc.test/…       allowed and then failed, for whatever reason
//
// Then it compares what was allowed with what the origins say they answered.
// Engines that are still running must have been stopped.
func (s *stage) check(want ...string) {
	s.t.Helper()
	wanted := tally{}
	for _, line := range want {
		wanted[line]++
	}
	logged, allowed := s.logged()
	failed := tally{} // :: METHOD URL → requests that may have got to their origin or not
	for line, n := range logged {
		if f := strings.SplitN(line, " ", 3); f[0] == "error" {
			failed[f[2]] += n
			if loose := "error * " + f[2]; wanted[loose] > 0 {
				delete(logged, line)
				logged[loose] += n
			}
		}
	}
	if !maps.Equal(logged, wanted) {
		s.t.Errorf("the log has\n%swant\n%s", logged, wanted)
	}
	s.sameSeen(allowed, failed)
}

// sameSeen compares what was allowed with what the origins answered. Requests
// that failed, METHOD URL each, may have got there or not.
func (s *stage) sameSeen(allowed tally, failed ...tally) {
	s.t.Helper()
	failed = append(failed, tally{})
	seen := s.seen(allowed)
	for line, n := range seen {
		request := line[:strings.LastIndexByte(line, ' ')]
		if spare := min(n-allowed[line], failed[0][request]); spare > 0 {
			failed[0][request] -= spare
			if seen[line] -= spare; seen[line] == 0 {
				delete(seen, line)
			}
		}
	}
	if !maps.Equal(seen, allowed) {
		s.t.Errorf("the origins answered\n%sthe log says that it let pass\n%s", seen, allowed)
	}
}

// logged verifies the logs and returns what is in them, and what of it has
// passed.
func (s *stage) logged() (all, allowed tally) {
	s.t.Helper()
	all, allowed = tally{}, tally{}
	for _, file := range s.logs {
		if r := s.run(suite.engine, "audit", "verify", file); r.code != 0 || !strings.Contains(r.stdout, "intact") {
			s.t.Errorf("audit verify: %s", r.all())
		}
		r := s.run(suite.engine, "audit", "show", "--json", file).ok()
		open := map[string]entry{} // :: request → its decision, until it ends
		lines := bufio.NewScanner(strings.NewReader(r.stdout))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e entry
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				s.t.Fatalf("audit show --json: %v: %s", err, lines.Text())
			}
			switch {
			case e.Event == "egress_allowed" && e.Phase == "decision":
				open[e.ID] = e
			case e.Event == "egress_allowed" && e.Phase == "complete":
				e.Method, e.Scheme, e.Host, e.Port, e.Path = open[e.ID].Method, open[e.ID].Scheme, open[e.ID].Host, open[e.ID].Port, open[e.ID].Path
				delete(open, e.ID)
				line := fmt.Sprintf("%s %s %d", e.Method, e.url(), e.StatusCode)
				all[line]++
				allowed[line]++
			case e.Event == "egress_denied":
				delete(open, e.ID)
				all[strings.Join(strings.Fields("denied "+e.Reason+" "+e.Method+" "+e.url()), " ")] += max(1, e.Count)
			case e.Event == "egress_error":
				delete(open, e.ID)
				all[strings.Join(strings.Fields("error "+e.Reason+" "+e.Method+" "+e.url()), " ")] += max(1, e.Count)
			}
		}
		for _, e := range open {
			all["unfinished "+e.Method+" "+e.url()]++
		}
	}
	return all, allowed
}

// seen is what the origins answered. An origin notes a request when its
// handler returns, which may be a moment after the client has the answer, so
// this waits until there is as much as is wanted.
func (s *stage) seen(want tally) tally {
	s.t.Helper()
	n := 0
	for _, times := range want {
		n += times
	}
	out := tally{}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(10 * time.Second); ; <-tick.C {
		requests, err := suite.origins.Seen()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range requests {
			out[r.String()]++
			n--
		}
		if n <= 0 || time.Now().After(late) {
			return out
		}
	}
}
