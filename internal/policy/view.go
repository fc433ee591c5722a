package policy

import (
	"slices"
	"sync/atomic"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
)

// View is what one agent may do. It does not change and may be used from many
// goroutines.
type View struct {
	set     *Set
	rules   []*rule
	index   *hostIndex
	observe bool
	nobody  bool // no policy selects the agent
	asks    bool // some rule has a condition

	merged atomic.Pointer[map[mergeKey]*outcome]
}

// Revision names the content of the set: "sha256:" and 12 hexadecimal digits.
// It is "" for a nil Set.
func (s *Set) Revision() string {
	if s == nil {
		return ""
	}
	return s.revision
}

// For returns the view of a principal. A nil Set, and one without a policy for
// the principal, gives a view that denies everything.
func (s *Set) For(p identity.Principal) *View {
	if s == nil {
		return &View{nobody: true, index: newHostIndex(nil)}
	}
	var buf [64]byte
	key := buf[:0]
	for i, c := range s.policies {
		if c.selects(p) {
			key = append(key, byte(i>>8), byte(i))
		}
	}
	if len(key) == 0 {
		return s.nobody
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[string(key)]
	if v == nil {
		var own []*compiled
		for i := 0; i < len(key); i += 2 {
			own = append(own, s.policies[int(key[i])<<8|int(key[i+1])])
		}
		v = newView(s, own)
		s.views[string(key)] = v
	}
	return v
}

func newView(s *Set, own []*compiled) *View {
	v := &View{set: s, observe: s.observe || len(own) > 0, nobody: len(own) == 0}
	for _, c := range own {
		v.rules = append(v.rules, c.rules...)
		v.observe = v.observe && (c.observe || c.doc.Metadata.Name == FlagsPolicy)
	}
	v.asks = slices.ContainsFunc(v.rules, func(r *rule) bool { return r.when != nil })
	v.index = newHostIndex(v.rules)
	return v
}

// Revision is the set's.
func (v *View) Revision() string { return v.set.Revision() }

// Observes reports that denials by policy are let pass for this agent.
func (v *View) Observes() bool { return v.observe }

// Host says what is possible for a name and port before any request exists,
// without allocating.
func (v *View) Host(a canon.Authority) HostVerdict {
	return v.host(a, false)
}

// tests reports that a condition of a rule for a may look at a field of that name.
func (v *View) tests(a *canon.Authority, name []byte) bool {
	return v.anyCondition(a, func(c *condition) bool { return c.tests(name) })
}

// Asks reports that a decision about a request to a may evaluate a condition,
// which takes a thousand times as long as one that does not.
func (v *View) Asks(a canon.Authority) bool {
	return v.anyCondition(&a, func(*condition) bool { return true })
}

// anyCondition reports that is holds for a condition of some rule for a.
func (v *View) anyCondition(a *canon.Authority, is func(*condition) bool) bool {
	if !v.asks {
		return false
	}
	var hosts hostList
	v.index.find(a, &hosts)
	for i := range hosts.n {
		if slices.ContainsFunc(hosts.at(i).whens, is) {
			return true
		}
	}
	return false
}

// Named is Host for a name that is asked for before there is a connection and
// so a port, as in DNS: what is possible on any port.
func (v *View) Named(name string) HostVerdict {
	return v.host(canon.Authority{Host: name}, true)
}

func (v *View) host(a canon.Authority, anyPort bool) HostVerdict {
	var hosts hostList
	v.index.find(&a, &hosts)
	h := HostVerdict{Reason: NotInAllowlist}
	if v.nobody {
		h.Reason = NoPolicyForAgent
	}
	first := allowlistOrder * 2
	for i := range hosts.n {
		for j := range hosts.at(i).ends {
			e := &hosts.at(i).ends[j]
			if e.port != a.Port && !anyPort {
				if h.Reason == NotInAllowlist {
					h.Reason = PortNotAllowed
				}
				continue
			}
			if bar := v.bar(&hosts, e.scheme, e.port); bar != nil {
				h.Reason = DeniedByRule
				if !h.Possible {
					h.Rule, h.Policy = bar.name, bar.policy
				}
				continue
			}
			h.Possible = true
			h.HTTPS = h.HTTPS || e.scheme == canon.HTTPS
			h.HTTP = h.HTTP || e.scheme == canon.HTTP
			h.Passthrough = h.Passthrough || e.scheme == canon.Tunnel
			h.NoSNI = h.NoSNI || e.noSNI
			if e.rule.order < first {
				first, h.Rule, h.Policy = e.rule.order, e.rule.name, e.rule.policy
			}
		}
	}
	switch {
	case h.Possible:
		h.Reason = ""
	case v.observe && a.Host != "" && (a.Port != 0 || anyPort):
		h.Possible, h.HTTP, h.HTTPS, h.Observed = true, true, true, true
	}
	return h
}

// bar returns a deny rule that nothing on this scheme and port gets past.
func (v *View) bar(hosts *hostList, scheme canon.Scheme, port uint16) *rule {
	for i := range hosts.n {
		for _, r := range hosts.at(i).bars {
			if r.ports(scheme).has(port) {
				return r
			}
		}
	}
	return nil
}

// mergeKey names the allow rules of a merged outcome, in order.
type mergeKey [8]uint32

// maxMerged bounds the merged outcomes that a view remembers.
const maxMerged = 512

// outcomeOf returns what the allow rules, in order, come to together. What was
// merged once is remembered, so that it costs nothing the next time.
func (v *View) outcomeOf(rules []*rule) *outcome {
	if len(rules) == 1 {
		return &rules[0].out
	}
	var key mergeKey
	if len(rules) > len(key) {
		return v.merge(rules)
	}
	for i, r := range rules {
		key[i] = r.id
	}
	known := v.merged.Load()
	if known != nil {
		if out := (*known)[key]; out != nil {
			return out
		}
	}
	out := v.merge(rules)
	next := map[mergeKey]*outcome{key: out}
	if known != nil {
		if len(*known) >= maxMerged {
			return out
		}
		for k, o := range *known {
			next[k] = o
		}
	}
	v.merged.CompareAndSwap(known, &next)
	return out
}

// merge unites the outcomes of allow rules that match one request.
func (v *View) merge(rules []*rule) *outcome {
	first := &rules[0].out
	out := &outcome{rule: first.rule, policy: first.policy, egress: &Egress{}}
	for _, r := range rules {
		o := &r.out
		for _, l := range o.limits {
			if !slices.Contains(out.limits, l) {
				out.limits = append(out.limits, l)
			}
		}
		if o.requestBytes > 0 && (out.requestBytes == 0 || o.requestBytes < out.requestBytes) {
			out.requestBytes = o.requestBytes
		}
		if o.recordSet && (!out.recordSet || o.record < out.record) {
			out.record, out.recordSet = o.record, true
		}
		out.edits = append(out.edits, o.edits...)
		out.egress.Addresses = append(out.egress.Addresses, o.egress.Addresses...)
		out.egress.SPKIPins = append(out.egress.SPKIPins, o.egress.SPKIPins...)
		for _, file := range o.roots {
			if !slices.Contains(out.roots, file) {
				out.roots = append(out.roots, file)
			}
		}
	}
	out.egress.Roots = v.set.pools.of(out.roots)
	out.egress.Key = egressKey(out.egress, out.roots)
	return out
}
