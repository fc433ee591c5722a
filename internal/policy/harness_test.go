package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

var bot = identity.Principal{Namespace: "support", ServiceAccount: "support-bot"}

// rules makes a policy file of rules for the support-bot.
func rules(text string) string {
	return document("support-bot", "enforce", "{namespaces: [support], serviceAccounts: [support-bot]}", "[]", text)
}

func document(name, mode, agents, allowlist, rules string) string {
	out := fmt.Sprintf("apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: %s}\nspec:\n  mode: %s\n  agents: %s\n  allowlist: %s\n", name, mode, agents, allowlist)
	if rules == "" {
		return out
	}
	out += "  rules:\n"
	for line := range strings.SplitSeq(strings.Trim(rules, "\n"), "\n") {
		out += "    " + strings.TrimPrefix(line, "\t") + "\n"
	}
	return out
}

// compile makes the set of policy files, with options.
func compile(t testing.TB, o policy.Options, files ...string) *policy.Set {
	t.Helper()
	var docs []v1alpha1.AgentPolicy
	for i, file := range files {
		parsed, err := v1alpha1.Parse(fmt.Sprintf("policy%d.yaml", i), []byte(file))
		if err != nil {
			t.Fatalf("%v\n%s", err, file)
		}
		docs = append(docs, parsed...)
	}
	set, _, err := policy.Compile(docs, o)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// world asks one view.
type world struct {
	t *testing.T
	v *policy.View
}

func with(t *testing.T, files ...string) world {
	t.Helper()
	return world{t, compile(t, policy.Options{}, files...).For(bot)}
}

// parse makes the request of "METHOD URL" with header lines and an optional
// body, through the same parsers as the engine's.
func parse(t testing.TB, line string, headers ...string) *canon.Request {
	t.Helper()
	method, url, _ := strings.Cut(line, " ")
	schemeName, rest, _ := strings.Cut(url, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	name, target := rest[:end], rest[end:]
	if target == "" || target[0] == '?' {
		target = "/" + target
	}
	if strings.HasSuffix(url, "/{asterisk}") {
		target = "*"
	}
	scheme := canon.HTTPS
	if schemeName == "http" || schemeName == "ws" {
		scheme = canon.HTTP
	}
	authority, err := canon.ParseAuthority(name, scheme.DefaultPort())
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	req := new(canon.Request)
	if method == "CONNECT" {
		req.FromTunnel(nextID(), authority)
		return req
	}
	head := method + " " + target + " HTTP/1.1\r\nHost: " + name + "\r\n"
	if schemeName == "ws" || schemeName == "wss" {
		head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	for _, h := range headers {
		head += h + "\r\n"
	}
	var h http1.RequestHead
	if err := http1.NewReader(strings.NewReader(head + "\r\n")).ReadRequest(&h); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	in := canon.Inbound{Kind: intake.Connect, Scheme: scheme, Authority: authority}
	if err := req.FromHTTP1(nextID(), in, &h); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return req
}

var ids uint64

func nextID() uint64 { ids++; return ids }

// decide gives the decision on a request without a body.
func (w world) decide(line string, headers ...string) policy.Decision {
	w.t.Helper()
	req := parse(w.t, line, headers...)
	d := w.v.Decide(req)
	checkDecision(w.t, w.v, line, req, d, nil)
	return d
}

// checkDecision holds every decision to what must be true of all of them.
func checkDecision(t testing.TB, v *policy.View, line string, req *canon.Request, d policy.Decision, body []byte) {
	t.Helper()
	p := d.Permit(req)
	if p.Covers(req) != (d.Verdict == policy.Allow) {
		t.Errorf("%s: verdict %v, and its permit covers the request: %v", line, d.Verdict, p.Covers(req))
	}
	if (d.Egress != nil) != (d.Verdict == policy.Allow) || p.Egress() != d.Egress {
		t.Errorf("%s: verdict %v with egress %v", line, d.Verdict, d.Egress)
	}
	if d.Verdict == policy.Deny && d.Reason == "" {
		t.Errorf("%s: denied without a reason", line)
	}
	if e := policy.Explain(v, req, body); e.Decision.Verdict != d.Verdict && !d.NeedBody {
		t.Errorf("%s: decided %v, explained %v", line, d.Verdict, e.Decision.Verdict)
	} else if d.Verdict == policy.Allow && !d.Observed {
		matched := false
		for _, r := range e.Rules {
			matched = matched || r.Rule == d.Rule && r.Policy == d.Policy && r.Matched
		}
		if !matched {
			t.Errorf("%s: allowed by %s, which the explanation says does not match: %+v", line, d.Rule, e.Rules)
		}
	}
}

func (w world) allow(line string, headers ...string) policy.Decision {
	w.t.Helper()
	d := w.decide(line, headers...)
	if d.Verdict != policy.Allow || d.Observed {
		w.t.Errorf("%s: %v (%s %s), want allow", line, d.Verdict, d.Reason, d.Rule)
	}
	return d
}

func (w world) deny(reason policy.Reason, line string, headers ...string) policy.Decision {
	w.t.Helper()
	d := w.decide(line, headers...)
	if d.Verdict != policy.Deny || d.Reason != reason || d.NeedBody {
		w.t.Errorf("%s: %v (%q), want deny (%s)", line, d.Verdict, d.Reason, reason)
	}
	return d
}

const json = "Content-Type: application/json"

// post sends a body to a rule that reads it.
func (w world) post(url, body string, headers ...string) policy.Decision {
	w.t.Helper()
	headers = append(headers, fmt.Sprintf("Content-Length: %d", len(body)))
	req := parse(w.t, "POST "+url, headers...)
	d := w.v.Decide(req)
	if d.NeedBody {
		if d.Verdict != policy.Deny || d.BodyLimit <= 0 {
			w.t.Errorf("%s: %v with limit %d while the body is not read", url, d.Verdict, d.BodyLimit)
		}
		d = w.v.DecideBody(req, []byte(body))
	}
	checkDecision(w.t, w.v, url, req, d, []byte(body))
	return d
}

func (w world) allowBody(url, body string, headers ...string) policy.Decision {
	w.t.Helper()
	d := w.post(url, body, headers...)
	if d.Verdict != policy.Allow {
		w.t.Errorf("%s %.80q %q: %s %s, want allow", url, body, headers, d.Reason, d.Detail)
	}
	return d
}

func (w world) denyBody(reason policy.Reason, url, body string, headers ...string) policy.Decision {
	w.t.Helper()
	d := w.post(url, body, headers...)
	if d.Verdict != policy.Deny || d.Reason != reason {
		w.t.Errorf("%s %.80q %q: %v (%q), want deny (%s)", url, body, headers, d.Verdict, d.Reason, reason)
	}
	return d
}
