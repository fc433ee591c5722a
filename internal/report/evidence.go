package report

import (
	"slices"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// The OWASP Top 10 for Agentic Applications 2026 (version 1.0, December 2025)
// names ten risks. Two of them are about what leaves an agent, and there a
// proxy's log is evidence. Which records speak for which control is this
// file's reading of them, and the only place where it stands.

// evidence is what a record says about a control.
type evidence uint8

const (
	held     evidence = iota // a control acted
	traced                   // an act can be put down to a rule or an identity
	attempts                 // somebody tried
	gap                      // a control was off, or could not see
)

// String is the word in the table.
func (e evidence) String() string {
	switch e {
	case held:
		return "held"
	case traced:
		return "attributed"
	case attempts:
		return "attempt"
	default:
		return "gap"
	}
}

// risk is one of OWASP's.
type risk struct{ id, title string }

func risks() []risk {
	return []risk{
		{"ASI02", "Tool Misuse & Exploitation"},
		{"ASI03", "Identity & Privilege Abuse"},
	}
}

// control is something that a record can be evidence for.
type control struct {
	key     string // what the findings call it; "" where they do not
	risk    string
	kind    evidence
	title   string
	records string // which records count, in words
	match   func(*seen) bool
}

// seen is a record as controls look at it.
type seen struct {
	*audit.Entry
	verdict  verdict
	decision bool // it decides a request; else it ends one
	group    group
}

// forwards reports a decision that let a request out.
func (s *seen) forwards() bool { return s.decision && (s.verdict == allowed || s.verdict == observed) }

func (s *seen) refusedFor(reasons ...string) bool {
	return s.verdict == denied && slices.Contains(reasons, s.Reason)
}

// refusesHost reports a denial of the whole host, for this agent: not of a
// method, or of one request too many.
func (s *seen) refusesHost() bool {
	return s.refusedFor("not_in_allowlist", "tunnel_not_allowed", "port_not_allowed", "scheme_not_allowed", "denied_by_rule", "no_policy_for_agent")
}

// claimsAnother reports a label that names somebody else than Kubernetes
// vouches for.
func (s *seen) claimsAnother() bool {
	return s.Claimed != "" && s.Namespace != "" && s.Claimed != s.ServiceAccount && s.Claimed != s.Namespace+"/"+s.ServiceAccount
}

func controls() []control { return append(misuse(), abuse()...) }

func misuse() []control {
	const id = "ASI02"
	return []control{
		{"", id, traced, "Calls were let out by a named rule of a named policy revision", "decisions to forward that name rule and policy revision",
			func(s *seen) bool {
				return s.forwards() && s.verdict == allowed && s.Rule != "" && s.PolicyRevision != ""
			}},
		{"", id, held, "Calls to hosts that no rule names were refused", "not_in_allowlist, tunnel_not_allowed",
			func(s *seen) bool { return s.refusedFor("not_in_allowlist", "tunnel_not_allowed") }},
		{"", id, held, "Calls beyond the allowed method, path, port or protocol were refused",
			"method_, path_, port_, scheme_, websocket_, upgrade_not_allowed",
			func(s *seen) bool {
				return s.refusedFor("method_not_allowed", "path_not_allowed", "port_not_allowed", "scheme_not_allowed", "websocket_not_allowed", "upgrade_not_allowed")
			}},
		{"", id, held, "Calls that a deny rule forbids were refused", "denied_by_rule",
			func(s *seen) bool { return s.refusedFor("denied_by_rule") }},
		{"", id, held, "Calls whose content a rule does not accept were refused", "condition_not_met, bad_body",
			func(s *seen) bool { return s.refusedFor("condition_not_met", "bad_body") }},
		{"", id, held, "A method hidden in a header was refused", "method_override",
			func(s *seen) bool { return s.refusedFor("method_override") }},
		{"", id, held, "Calls with more than one reading were refused", "ambiguous_path and the bad_… reasons of form",
			func(s *seen) bool { return s.verdict == denied && s.group == groupForm }},
		{"limit", id, held, "Limits on rate, number and size were enforced", "rate_limited, request_count_exceeded, body_too_large, refusal_budget, …",
			func(s *seen) bool { return s.verdict == denied && s.group == groupLimit }},
		{"", id, held, "What a changed policy no longer allows was cut", "policy_changed",
			func(s *seen) bool { return !s.decision && s.Reason == "policy_changed" }},
		{"", id, gap, "Calls that the policy denies were let pass by observe mode", "observed",
			func(s *seen) bool { return s.decision && s.verdict == observed }},
		{"", id, gap, "Calls inside tunnels that nobody read", "decisions to forward with scheme tunnel (passthrough)",
			func(s *seen) bool { return s.forwards() && s.Scheme == "tunnel" }},
	}
}

func abuse() []control {
	const id = "ASI03"
	return []control{
		{"", id, traced, "Egress of an identity that Kubernetes vouches for", "decisions to forward with namespace and service account",
			func(s *seen) bool { return s.forwards() && s.Namespace != "" }},
		{"", id, traced, "Egress on behalf of a user whose token was verified", "decisions to forward with invoking_user",
			func(s *seen) bool { return s.forwards() && s.InvokingUser != "" }},
		{"", id, gap, "Egress of an identity that only the engine's flag names", "decisions to forward without a namespace",
			func(s *seen) bool { return s.forwards() && s.Namespace == "" }},
		{"unvouched", id, held, "Callers whom nobody vouches for were refused", "unknown_principal, not_redirected",
			func(s *seen) bool { return s.refusedFor("unknown_principal", "not_redirected") }},
		{"", id, held, "Known callers without a policy were refused", "no_policy_for_agent",
			func(s *seen) bool { return s.refusedFor("no_policy_for_agent") }},
		{"names", id, held, "Names that do not agree were refused (domain fronting)", "name_mismatch, no_sni, ech_in_passthrough",
			func(s *seen) bool { return s.verdict == denied && s.group == groupName }},
		{"inside", id, held, "Ways to private addresses and metadata services were refused", "address_denied, and hosts that are one and that no rule allows",
			func(s *seen) bool { return s.refusedFor("address_denied") || s.refusesHost() && insideHost(s.Host) }},
		{"claims", id, attempts, "A caller claims another name than the one vouched for", "records whose claimed identity is not the service account's",
			func(s *seen) bool { return s.decision && s.claimsAnother() }},
		{"", id, traced, "Private addresses were reached because a rule names them", "completions whose upstream_addr is private",
			func(s *seen) bool { return !s.decision && s.verdict != denied && insideUpstream(s.Upstream) }},
	}
}

// finding is what was found for one control.
type finding struct {
	count
	agents map[agentKey]struct{} // at most maxAgents
}

// weigh counts e for each control that it speaks for.
func (c *collector) weigh(s *seen, at ref, n int64) {
	for i := range c.controls {
		if !c.controls[i].match(s) {
			continue
		}
		f := &c.findings[i]
		f.add(s.Entry, at, n)
		if f.agents == nil {
			f.agents = map[agentKey]struct{}{}
		}
		if len(f.agents) < maxAgents {
			f.agents[agentOf(s.Entry)] = struct{}{}
		}
	}
}
