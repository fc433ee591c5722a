package policy

import (
	"fmt"
	"slices"
	"strings"
)

// passthroughs refuses a passthrough host that another rule of the same agent
// means to judge by what is inside: an unseen tunnel would be the way around
// that rule.
func (c *compiler) passthroughs(policies []*compiled) {
	for _, p := range policies {
		for _, tunnel := range p.rules {
			if !tunnel.passthrough {
				continue
			}
			for _, q := range policies {
				if p.meets(q) {
					c.conflicts(tunnel, q.rules)
				}
			}
		}
	}
}

func (c *compiler) conflicts(tunnel *rule, rules []*rule) {
	for _, r := range rules {
		if r.passthrough || !r.conditional() || !r.https.overlaps(&tunnel.https) {
			continue
		}
		for i, host := range tunnel.hosts {
			for _, other := range r.hosts {
				if !host.overlaps(other) && !(other.every && r.deny) {
					continue
				}
				at := r.doc.Source.Pos(r.field)
				c.fail(tunnel, fmt.Sprintf("%s.hosts[%d]", tunnel.field, i),
					fmt.Sprintf("passthrough rule %q lets %s through unseen, but rule %q of policy %q (%s:%d) judges what is sent to %s",
						tunnel.name, host.text, r.name, r.policy, r.doc.Source.File, at.Line, other.text),
					"a host to be either unseen or judged", "inspect it, or leave it out of the other rule")
				return
			}
		}
	}
}

// warnings finds what is allowed and likely not meant.
func warnings(policies []*compiled) []Warning {
	var out []Warning
	warn := func(r *rule, format string, args ...any) {
		pos := r.doc.Source.Pos(r.field)
		file := r.doc.Source.File
		if file == "" {
			file = "policy " + r.policy
		}
		out = append(out, Warning{file, pos.Line, pos.Column, fmt.Sprintf("rule %q ", r.name) + fmt.Sprintf(format, args...)})
	}
	for _, p := range policies {
		a := p.doc.Spec.Agents
		if len(a.Namespaces) == 0 && len(a.ServiceAccounts) > 0 {
			pos := p.doc.Source.Pos("spec.agents")
			out = append(out, Warning{p.doc.Source.File, pos.Line, pos.Column, fmt.Sprintf("policy %q selects service accounts of that name in every namespace; add namespaces", p.doc.Metadata.Name)})
		}
		w := widths{own: p, denies: map[string][]*rule{}, lists: map[string][]*rule{}}
		for _, q := range policies {
			if p.meets(q) {
				w.add(q)
				if p.observe && !q.observe && q.doc.Metadata.Name != FlagsPolicy {
					pos := p.doc.Source.Pos("spec.mode")
					out = append(out, Warning{p.doc.Source.File, pos.Line, pos.Column, fmt.Sprintf("policy %q observes, but %q enforces for some of the same agents, so nothing is let pass for them", p.doc.Metadata.Name, q.doc.Metadata.Name)})
				}
			}
		}
		for _, r := range p.rules {
			w.rule(r, warn)
		}
	}
	return out
}

// widths finds, by host, the rules that are wider than another. Only rules
// whose host pattern covers the other's are compared, so that a large file is
// not a quadratic one.
type widths struct {
	own    *compiled
	denies map[string][]*rule // deny rules without a condition, by host
	lists  map[string][]*rule // allowlists, by host
	stars  []hostPattern      // patterns with a star label in the middle, and CIDRs
}

func (w *widths) add(p *compiled) {
	for _, r := range p.rules {
		into := w.denies
		switch {
		case r.order >= allowlistOrder:
			into = w.lists
		case !r.deny || r.when != nil:
			continue
		}
		for _, host := range r.hosts {
			into[host.text] = append(into[host.text], r)
			if host.prefix.IsValid() || slices.Contains(host.labels, "*") {
				w.stars = append(w.stars, host)
			}
		}
	}
}

// covering returns the patterns that cover host.
func (w *widths) covering(host hostPattern) []string {
	out := []string{host.text, "*"}
	labels := slices.Clone(host.labels)
	slices.Reverse(labels)
	for i := range labels {
		if i > 0 || host.below {
			out = append(out, "*."+strings.Join(labels[i:], "."))
		}
	}
	for _, star := range w.stars {
		if star.covers(host) {
			out = append(out, star.text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (w *widths) rule(r *rule, warn func(r *rule, format string, args ...any)) {
	if r.deny {
		return
	}
	denied := 0
	var by *rule
	for _, host := range r.hosts {
		covering := w.covering(host)
		for _, pattern := range covering {
			if i := slices.IndexFunc(w.denies[pattern], func(d *rule) bool { return d.swallows(r) }); i >= 0 {
				denied++
				by = w.denies[pattern][i]
				break
			}
		}
		if r.order >= allowlistOrder || !r.conditional() || r.passthrough {
			continue
		}
		for _, pattern := range covering {
			for _, list := range w.lists[pattern] {
				if list.https.overlaps(&r.https) || list.http.overlaps(&r.http) {
					warn(r, "restricts %s, but the allowlist of policy %q has %s and allows every method and path there", host.text, list.policy, pattern)
				}
			}
		}
	}
	if by != nil && denied == len(r.hosts) {
		warn(r, "can never match: deny rule %q of policy %q covers it", by.name, by.policy)
	}
}

// swallows reports that r, whose host covers other's, denies all that other allows.
func (r *rule) swallows(other *rule) bool {
	if !r.https.covers(&other.https) || !r.http.covers(&other.http) || !r.methods.covers(&other.methods) || r.when != nil {
		return false
	}
	if len(r.paths) == 0 {
		return true
	}
	return len(other.paths) > 0 && !slices.ContainsFunc(other.paths, func(path string) bool {
		return !slices.ContainsFunc(r.paths, func(wide string) bool { return pathCovers(wide, path) })
	})
}

// pathCovers reports that every path of pattern narrow matches wide.
func pathCovers(wide, narrow string) bool {
	a, b := strings.Split(wide[1:], "/"), strings.Split(narrow[1:], "/")
	for i, segment := range a {
		switch {
		case segment == "**":
			return i < len(b)
		case i >= len(b) || b[i] == "**":
			return false
		case segment == "*":
			if b[i] == "" {
				return false
			}
		case b[i] == "*", string(appendMatching(nil, []byte(segment))) != string(appendMatching(nil, []byte(b[i]))):
			return false
		}
	}
	return len(a) == len(b)
}
