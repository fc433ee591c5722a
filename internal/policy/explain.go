package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// Explanation says how a decision came about.
type Explanation struct {
	Decision Decision
	Rules    []RuleTrace // those of the agent that name the host, in the order of the files
	Others   int         // how many rules of the agent are for other hosts
}

// RuleTrace is one rule's part in a decision.
type RuleTrace struct {
	Policy, Rule string
	File         string
	Line         int
	Action       string // allow, deny or passthrough
	Matched      bool
	Why          string // what did not match, or "matches"
}

// Explain decides req and says of each rule of the agent that names the host
// what it made of the request. Body is what the request carries, or nil. It
// goes through all rules and is for people, not for the way of a request.
func Explain(v *View, req *canon.Request, body []byte) Explanation {
	out := Explanation{Decision: v.Decide(req)}
	if out.Decision.NeedBody {
		out.Decision = v.DecideBody(req, body)
	}
	for _, r := range v.rules {
		if !r.names(&req.Authority) {
			out.Others++
			continue
		}
		t := RuleTrace{Policy: r.policy, Rule: r.name, File: r.doc.Source.File, Line: r.doc.Source.Pos(r.field).Line, Action: r.action()}
		t.Why = v.trace(r, req, body)
		switch d := &out.Decision; {
		case t.Why == "":
			t.Matched, t.Why = true, "matches"
		case d.Reason == DeniedByRule && d.Rule == r.name && d.Policy == r.policy:
			t.Matched, t.Why = true, "matches another reading of the request"
		}
		out.Rules = append(out.Rules, t)
	}
	return out
}

func (r *rule) action() string {
	switch {
	case r.deny:
		return "deny"
	case r.passthrough:
		return "passthrough"
	}
	return "allow"
}

// names reports that some host pattern of the rule matches.
func (r *rule) names(a *canon.Authority) bool {
	var found hostList
	newHostIndex([]*rule{r}).find(a, &found)
	return found.n > 0
}

// trace says why a rule that names the host does not match, or "".
func (v *View) trace(r *rule, req *canon.Request, body []byte) string {
	scheme := req.Scheme
	if scheme == canon.Tunnel {
		scheme = canon.HTTPS
	}
	switch ports := r.ports(scheme); {
	case (req.Scheme == canon.Tunnel) != r.passthrough && !(r.deny && !r.conditional()):
		if r.passthrough {
			return "it is for passthrough tunnels"
		}
		return "it looks inside, which a passthrough tunnel does not allow"
	case !ports.all && ports.first == 0:
		return "it is not for scheme " + scheme.String()
	case !ports.has(req.Port):
		return fmt.Sprintf("it is not for port %d", req.Port)
	case !r.methods.has(req.Method, methodBit(req.Method)):
		return "it is not for method " + req.Method
	case len(r.paths) > 0 && !slices.ContainsFunc(r.paths, func(p string) bool { return pathMatches(p, req.Path) }):
		return "no path of it matches"
	case r.deny || r.passthrough:
	case req.Quirks&^r.quirks&pathQuirks != 0:
		return "it does not opt in to " + (req.Quirks &^ r.quirks & pathQuirks).String() + " in a path"
	case req.Quirks&^r.quirks&canon.MethodOverride != 0 && v.restricts(&req.Authority):
		return "it does not opt in to methodOverride"
	case req.Upgrade == canon.WebSocket && !r.websocket:
		return "it does not allow WebSocket"
	}
	if r.when == nil {
		return ""
	}
	return r.traceCondition(req, body)
}

func (r *rule) traceCondition(req *canon.Request, body []byte) string {
	f := &facts{req: req, body: map[string]any{}}
	if r.when.needBody {
		limit := r.bodyLimit
		if limit == 0 {
			limit = defaultBodyLimit
		}
		value, present, err := readBody(req, body, limit)
		if err != nil {
			return "its condition reads the body, which is refused: " + err.Error()
		}
		if present {
			f.body["json"] = value
		}
	}
	switch holds, err := r.when.holds(f); {
	case err != nil && r.deny: // a deny rule denies when in doubt
		return ""
	case err != nil:
		return err.Error()
	case !holds:
		return "its condition is false"
	}
	return ""
}

// restricts reports that some rule of the host looks at methods, paths or a
// condition.
func (v *View) restricts(a *canon.Authority) bool {
	var hosts hostList
	v.index.find(a, &hosts)
	for i := range hosts.n {
		if hosts.at(i).restricts {
			return true
		}
	}
	return false
}

// pathMatches is the meaning of a pattern in its plainest form, segment by
// segment. The trie must agree with it.
func pathMatches(pattern string, path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	want := strings.Split(pattern[1:], "/")
	have := strings.Split(string(appendMatching(nil, path))[1:], "/")
	for i, segment := range want {
		switch {
		case segment == "**":
			return i < len(have)
		case i >= len(have):
			return false
		case segment == "*":
			if have[i] == "" {
				return false
			}
		case string(appendMatching(nil, []byte(segment))) != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

// CheckCase compares a decision with what a case wants. It returns "" or what
// differs.
func CheckCase(c v1alpha1.Case, d Decision) string {
	var wrong []string
	got := v1alpha1.WantDeny
	if d.Verdict == Allow && !d.Observed {
		got = v1alpha1.WantAllow
	}
	if got != c.Want {
		wrong = append(wrong, fmt.Sprintf("want %s, got %s", c.Want, got))
	}
	if c.Reason != "" && c.Reason != string(d.Reason) {
		wrong = append(wrong, fmt.Sprintf("want reason %s, got %q", c.Reason, d.Reason))
	}
	if c.Rule != "" && c.Rule != d.Rule {
		wrong = append(wrong, fmt.Sprintf("want rule %s, got %q", c.Rule, d.Rule))
	}
	if len(wrong) > 0 && d.Verdict == Deny && got != c.Want {
		wrong = append(wrong, fmt.Sprintf("reason %s", d.Reason))
		if d.Detail != "" {
			wrong = append(wrong, d.Detail)
		}
	}
	return strings.Join(wrong, "; ")
}
