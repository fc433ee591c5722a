package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

func TestARecordIsNamedByWhatItHas(t *testing.T) {
	for want, e := range map[string]audit.Entry{
		"GET https://a.test/x?q=":         {Method: "GET", Scheme: "https", Host: "a.test", Port: 443, Path: "/x", QueryKeys: []string{"q"}},
		"GET https://a.test:8443/v1/*":    {Method: "GET", Scheme: "https", Host: "a.test", Port: 8443, PathPattern: "/v1/*"},
		"CONNECT a.test":                  {Method: "CONNECT", Host: "a.test", Port: 443},
		"a.test:853":                      {Host: "a.test", Port: 853},
		"[2001:db8::1]":                   {Host: "2001:db8::1"},
		"a connection that named no host": {},
	} {
		if got := (logged{&e}).request(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestCountedRefusalsAreNotLeftOut has what the log keeps of a flood: how many
// there were and why, and no host.
func TestCountedRefusalsAreNotLeftOut(t *testing.T) {
	counted := func(reason string, n int64) logged {
		return logged{&audit.Entry{Event: "egress_denied", Phase: "decision", Reason: reason, Count: n, Detail: "more of the same, counted"}}
	}
	r := replay{differ: map[difference]*tallied{}}
	s := suggestion{agents: map[identity.Principal]sites{}, denied: map[string]int64{}, pending: map[string]*visit{}}
	for _, l := range []logged{counted("not_in_allowlist", 2304), counted("bad_request_line", 1096)} {
		if err := r.add(l); err != nil {
			t.Fatal(err)
		}
		if err := s.add(l); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := r.print(&out); err != nil || !strings.Contains(out.String(), "2304 depend on what the log does not keep, 1096 were refused before policy") {
		t.Errorf("replay: %q, %v", out.String(), err)
	}
	for reason, n := range map[string]int64{"not_in_allowlist": 2304, "bad_request_line": 1096} {
		if got := s.denied["what was counted and not listed ("+reason+")"]; got != n {
			t.Errorf("suggest: %v, want %d for %s", s.denied, n, reason)
		}
	}
}

// A log has as many URLs as an agent liked; what is held of them, and printed, has an end.
func TestAReplayListsSoManyRequestsAndCountsTheOthers(t *testing.T) {
	docs, err := v1alpha1.Parse("none", []byte("apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: none}\nspec: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true})
	if err != nil {
		t.Fatal(err)
	}
	r := replay{set: set, differ: map[difference]*tallied{}}
	const more = 7
	for i := range uint64(mostListed + more) {
		e := &audit.Entry{Seq: i + 1, Event: "egress_allowed", Phase: "decision", AgentIdentity: "bot", Method: "GET", Scheme: "https", Host: "a.test", Port: 443, Path: fmt.Sprint("/", i)}
		if err := r.add(logged{e}); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := r.print(&out); err == nil {
		t.Error("a difference is none")
	}
	last := fmt.Sprintf("allow -> deny  other requests  (not_in_allowlist)  %d times, first in record %d, agent bot\n0 decisions alike, %d differ\n", more, mostListed+1, mostListed+more)
	if got := out.String(); strings.Count(got, "\n") != mostListed+2 || !strings.HasSuffix(got, last) {
		t.Errorf("%d lines, the end is %q, want %q", strings.Count(got, "\n"), got[max(0, len(got)-200):], last)
	}
}
