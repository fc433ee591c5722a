package fuzz

import (
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// FuzzCondition judges an agent's request by a condition and by its opposite,
// as an allow rule and as a deny rule beside one that allows everything. A
// condition that holds, or does not, decides all four as one would think; one
// that is an error allows nothing, whichever way it is asked.
func FuzzCondition(f *testing.F) {
	for _, when := range []string{
		`request.body.json.model in ["m", "n"]`,
		`request.body.json.messages.all(m, m.role == "user" && size(m.content) < 10)`,
		`request.method == "POST" || request.body.json.n > 1`,
		`has(request.body.json) && request.body.json != null`,
		`request.headers["x-a"][0] == "b"`,
		`"x-a" in request.headers && request.headers["x-a"].exists(v, v.startsWith("b"))`,
		`request.query["q"].size() == 1 && int(request.query["q"][0]) < 7`,
		`request.path.matches("^/(a+)+$")`,
		`request.path.split("/").size() > 2`,
		`request.port == 443 && request.scheme == "https" && request.host.endsWith(".example")`,
		`[1, 2, 3].map(x, x * 9223372036854775807).size() > 0`,
		`request.path[0] == "/"`, `request.body`, `request.body.json`, `1 / int(request.query.n[0]) == 1`, `true`, `false`,
		`duration(request.headers.t[0]) > duration("1s")`, `timestamp(request.body.json.at) < timestamp("2026-01-01T00:00:00Z")`,
	} {
		for _, r := range [][5]string{
			{"GET", "/a/b?q=1", "x-a", "b", ""},
			{"POST", "/a?q=1&q=x;y", "x-a", "\xff", `{"model":"m","n":2,"messages":[{"role":"user","content":"hi"}],"at":"2025-01-01T00:00:00Z"}`},
			{"POST", "/aaaaaaaaaaaaaaaaaaaaaaaa!", "t", "2s", `[1,"é",null]`},
		} {
			f.Add(when, r[0], r[1], r[2], r[3], []byte(r[4]))
		}
	}
	f.Fuzz(func(t *testing.T, when, method, target, name, value string, body []byte) {
		views := make([]*policy.View, 4)
		for i, text := range []string{when, "!(" + when + ")"} {
			views[i] = conditional(v1alpha1.Allow, text)
			views[2+i] = conditional(v1alpha1.Deny, text)
		}
		for _, v := range views {
			if v == nil {
				return
			}
		}
		req := conditionRequest(method, target, name, value, len(body))
		if req == nil {
			return
		}
		var allowed [4]bool
		for i, v := range views {
			d := v.DecideBody(req, body)
			if again := v.DecideBody(req, body); again.Verdict != d.Verdict || again.Reason != d.Reason {
				t.Fatalf("%s %s by %q: %v (%s), and then %v (%s)", method, target, when, d.Verdict, d.Reason, again.Verdict, again.Reason)
			}
			if allowed[i] = d.Verdict == policy.Allow; allowed[i] != d.Permit(req).Covers(req) {
				t.Fatalf("%s %s by %q: %v with a permit of another mind", method, target, when, d.Verdict)
			}
		}
		holds, fails := allowed[0], allowed[1]
		if holds && fails || allowed[2] != fails || allowed[3] != holds {
			t.Fatalf("%s %s %q by %q: allowed where it holds %t, where it does not %t; not denied where it holds %t, where it does not %t",
				method, target, body, when, holds, fails, allowed[2], allowed[3])
		}
	})
}

// conditional is the view of a policy with a condition: an allow rule alone, or
// a deny rule beside one that allows everything. nil: the condition does not load.
func conditional(action v1alpha1.Action, when string) *policy.View {
	rules := []v1alpha1.Rule{{Action: action, Hosts: []string{"x.example"}, When: when}}
	if action == v1alpha1.Deny {
		rules = append(rules, v1alpha1.Rule{Hosts: []string{"x.example"}})
	}
	set, _, err := policy.Compile([]v1alpha1.AgentPolicy{{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "fuzz"}, Spec: v1alpha1.Spec{Rules: rules},
	}}, policy.Options{AnyAgent: true})
	if err != nil {
		return nil
	}
	return set.For(identity.Principal{})
}

// conditionRequest is a request as it comes off the wire, nil where it would
// not be taken.
func conditionRequest(method, target, name, value string, size int) *canon.Request {
	h := &http1.RequestHead{Method: []byte(method), Target: []byte(target), Minor: 1, Host: []byte("x.example")}
	h.Fields = []http1.Field{{Name: []byte("Content-Type"), Value: []byte("application/json")}}
	if http1.ValidToken([]byte(name)) {
		h.Fields = append(h.Fields, http1.Field{Name: []byte(name), Value: []byte(value)})
	}
	if size > 0 {
		h.Framing, h.Length = http1.Length, int64(size)
	}
	in := canon.Inbound{Kind: intake.Connect, Scheme: canon.HTTPS, Authority: canon.Authority{Host: "x.example", Port: 443}}
	req := new(canon.Request)
	if req.FromHTTP1(1, in, h) != nil {
		return nil
	}
	return req
}
