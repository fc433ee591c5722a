package policy

import (
	"maps"
	"slices"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
)

// Documents returns the policies that select a principal, in the order of the
// files: what another engine that knows nobody else has to be told. They are
// shared: do not modify them.
func (s *Set) Documents(p identity.Principal) []v1alpha1.AgentPolicy {
	return s.documents(func(c *compiled) bool { return c.selects(p) })
}

// NamespaceDocuments returns the policies that select some agent of a namespace,
// whatever its service account, in the order of the files: what an engine for
// all of them has to be told. They are shared: do not modify them.
func (s *Set) NamespaceDocuments(namespace string) []v1alpha1.AgentPolicy {
	return s.documents(func(c *compiled) bool { return c.selectsIn(namespace) })
}

func (s *Set) documents(wanted func(*compiled) bool) []v1alpha1.AgentPolicy {
	if s == nil {
		return nil
	}
	var out []v1alpha1.AgentPolicy
	for _, c := range s.policies {
		if wanted(c) {
			out = append(out, *c.doc)
		}
	}
	return out
}

// NamespaceViews returns the views that agents of a namespace can have, each
// once: those of the service accounts that a policy names, and that of all others.
func (s *Set) NamespaceViews(namespace string) []*View {
	if s == nil {
		return nil
	}
	accounts := map[string]bool{"": true} // no policy can name it: it stands for those that none names
	for _, c := range s.policies {
		if c.selectsIn(namespace) {
			for _, name := range c.doc.Spec.Agents.ServiceAccounts {
				accounts[name] = true
			}
		}
	}
	var out []*View
	seen := map[*View]bool{}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		if v := s.For(identity.Principal{Namespace: namespace, ServiceAccount: name}); !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}

// selectsIn reports that the policy is for some agent of a namespace.
func (c *compiled) selectsIn(namespace string) bool {
	a := &c.doc.Spec.Agents
	return c.anyone || !a.IsZero() && (len(a.Namespaces) == 0 || slices.Contains(a.Namespaces, namespace))
}

// Inspected returns the host patterns that the agent could reach over TLS that
// the engine terminates: what its certificate authority must be able to sign
// for, and no more. They are in canonical spelling, sorted, each once: exact
// names, "*.x", names with a "*" label in the middle, "*", and CIDRs.
//
// Deny rules take nothing away, since they could not do it in the words that a
// certificate has, and they add nothing. Hosts that are passed through or
// reached over plain http alone need no certificate. An agent that observes
// may be let through to every host, so its pattern is "*"; one without a
// policy has none.
func (v *View) Inspected() []string {
	if v.observe {
		return []string{"*"}
	}
	seen := map[string]bool{}
	for _, r := range v.rules {
		if r.deny || r.passthrough || r.https.empty() {
			continue
		}
		for _, p := range r.hosts {
			seen[p.text] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
