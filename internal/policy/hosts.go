package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// hostPattern is a host of a rule in canonical form.
type hostPattern struct {
	text   string       // canonical spelling
	labels []string     // from the last to the first, "*" for one label; nil for every and prefix
	below  bool         // begins with "*.": one label or more before labels
	every  bool         // "*"
	prefix netip.Prefix // a CIDR; else invalid
}

// parseHostPattern makes the canonical form of a host in a policy. Its labels
// go through the same canonicaliser as a request's, so both have one spelling.
func parseHostPattern(text string) (hostPattern, error) {
	if text == "*" {
		return hostPattern{text: "*", every: true}, nil
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return hostPattern{text: prefix.String(), prefix: prefix.Masked()}, nil
	}
	// A star is no label to the canonicaliser, which a placeholder is. It has
	// a digit and a letter, so that no name becomes an address by it.
	const placeholder = "s0star"
	parts := strings.Split(strings.TrimSuffix(text, "."), ".")
	for i, part := range parts {
		if part == "*" {
			parts[i] = placeholder
		}
	}
	host, addr, err := canon.ParseUnicodeHost(strings.Join(parts, "."))
	if err != nil {
		return hostPattern{}, fmt.Errorf("%q is no host: %w", text, err)
	}
	if addr.IsValid() {
		return hostPattern{}, fmt.Errorf("%q is an address: write it as the CIDR %s", text, netip.PrefixFrom(addr, addr.BitLen()))
	}
	labels := strings.Split(host, ".")
	for i := range labels {
		if parts[i] == placeholder {
			labels[i] = "*"
		}
	}
	p := hostPattern{text: strings.Join(labels, ".")}
	if labels[0] == "*" {
		p.below, labels = true, labels[1:]
	}
	slices.Reverse(labels)
	p.labels = labels
	return p, nil
}

// exact reports that the pattern is one name.
func (p hostPattern) exact() bool {
	return len(p.labels) > 0 && !p.below && !slices.Contains(p.labels, "*")
}

// overlaps reports that some host matches both patterns.
func (p hostPattern) overlaps(q hostPattern) bool {
	switch {
	case p.prefix.IsValid() || q.prefix.IsValid():
		return p.prefix.IsValid() && q.prefix.IsValid() && p.prefix.Overlaps(q.prefix)
	case p.every || q.every:
		return true
	}
	for i := range min(len(p.labels), len(q.labels)) {
		if a, b := p.labels[i], q.labels[i]; a != b && a != "*" && b != "*" {
			return false
		}
	}
	switch {
	case len(p.labels) == len(q.labels):
		return p.below == q.below
	case len(p.labels) < len(q.labels):
		return p.below
	default:
		return q.below
	}
}

// covers reports that every host of q matches p.
func (p hostPattern) covers(q hostPattern) bool {
	switch {
	case p.prefix.IsValid() || q.prefix.IsValid():
		return p.prefix.IsValid() && q.prefix.IsValid() && p.prefix.Bits() <= q.prefix.Bits() && p.prefix.Contains(q.prefix.Addr())
	case p.every || q.every:
		return p.every
	case len(p.labels) > len(q.labels):
		return false
	}
	for i, label := range p.labels {
		if label != "*" && label != q.labels[i] {
			return false
		}
	}
	if len(p.labels) == len(q.labels) {
		return p.below == q.below
	}
	return p.below
}

// hostIndex finds the patterns that a host matches, in time that grows with
// the host's labels.
type hostIndex struct {
	exact    map[string]*hostNode // until pack
	names    hostTable            // of exact names, after it
	labels   labelNode            // patterns with stars, from the last label to the first
	every    *hostNode            // "*", for names
	denyAll  *hostNode            // the deny rules of "*", for addresses, which "*" does not allow
	prefixes map[netip.Prefix]*hostNode
	lengths  []int // of the prefixes, without repetition; IPv4 as it is, IPv6 plus v6Length
}

// labelNode is a node of the trie of reversed labels.
type labelNode struct {
	children map[string]*labelNode
	one      *labelNode // a "*" label
	here     *hostNode  // patterns that end here
	below    *hostNode  // patterns that go on with "*." here
}

// hostList holds the patterns that a host matches. Few hosts match many.
type hostList struct {
	n     int
	first [8]*hostNode
	more  []*hostNode
}

func (l *hostList) add(h *hostNode) {
	switch {
	case h == nil:
	case l.n < len(l.first):
		l.first[l.n] = h
		l.n++
	default:
		l.more = append(l.more, h)
		l.n++
	}
}

func (l *hostList) at(i int) *hostNode {
	if i < len(l.first) {
		return l.first[i]
	}
	return l.more[i-len(l.first)]
}

func (x *hostIndex) find(a *canon.Authority, out *hostList) {
	if a.Addr.IsValid() {
		x.findAddr(a.Addr, out)
		return
	}
	if a.Host == "" {
		return
	}
	out.add(x.names.find(a.Host))
	x.labels.find(a.Host, out)
	out.add(x.every)
}

func (x *hostIndex) findAddr(addr netip.Addr, out *hostList) {
	for _, length := range x.lengths {
		if addr.Is4() != (length < v6Length) {
			continue
		}
		if prefix, err := addr.Prefix(length % v6Length); err == nil {
			out.add(x.prefixes[prefix])
		}
	}
	out.add(x.denyAll)
}

// v6Length is added to the length of an IPv6 prefix in hostIndex.lengths, to
// tell it from one of IPv4. It is more than any length, 128.
const v6Length = 1000

// find walks the trie along host, whose labels after this node are left.
func (n *labelNode) find(host string, out *hostList) {
	if host == "" {
		out.add(n.here)
		return
	}
	out.add(n.below)
	if n.children == nil && n.one == nil {
		return
	}
	dot := strings.LastIndexByte(host, '.')
	label, rest := host[dot+1:], host[:max(dot, 0)]
	if child := n.children[label]; child != nil {
		child.find(rest, out)
	}
	if n.one != nil {
		n.one.find(rest, out)
	}
}

// node returns the hostNode of a pattern, which it makes if there is none.
func (x *hostIndex) node(p hostPattern) *hostNode {
	switch {
	case p.every:
		return x.slot(&x.every, p)
	case p.prefix.IsValid():
		length := p.prefix.Bits()
		if p.prefix.Addr().Is6() {
			length += v6Length
		}
		if !slices.Contains(x.lengths, length) {
			x.lengths = append(x.lengths, length)
		}
		if x.prefixes[p.prefix] == nil {
			x.prefixes[p.prefix] = newHostNode(p)
		}
		return x.prefixes[p.prefix]
	case p.exact():
		if x.exact[p.text] == nil {
			x.exact[p.text] = newHostNode(p)
		}
		return x.exact[p.text]
	}
	at := &x.labels
	for _, label := range p.labels {
		next := at.children[label]
		if label == "*" {
			next = at.one
		}
		if next == nil {
			next = &labelNode{}
			if label == "*" {
				at.one = next
			} else if at.children == nil {
				at.children = map[string]*labelNode{label: next}
			} else {
				at.children[label] = next
			}
		}
		at = next
	}
	if p.below {
		return x.slot(&at.below, p)
	}
	return x.slot(&at.here, p)
}

func (x *hostIndex) slot(at **hostNode, p hostPattern) *hostNode {
	if *at == nil {
		*at = newHostNode(p)
	}
	return *at
}

// newHostIndex files the rules under their hosts.
func newHostIndex(rules []*rule) *hostIndex {
	x := &hostIndex{exact: map[string]*hostNode{}, prefixes: map[netip.Prefix]*hostNode{}}
	patterns := map[*hostNode][]*rule{}
	for _, r := range rules {
		for _, p := range r.hosts {
			h := x.node(p)
			h.add(r)
			if !p.exact() {
				patterns[h] = append(patterns[h], r)
			}
			if p.every && r.deny {
				x.slot(&x.denyAll, p).add(r)
			}
		}
	}
	for _, h := range x.nodes() {
		h.finish()
	}
	x.names = pack(x.exact, func(name string) []*rule {
		var hosts hostList
		var beside []*rule
		x.labels.find(name, &hosts)
		hosts.add(x.every)
		for i := range hosts.n {
			beside = append(beside, patterns[hosts.at(i)]...)
		}
		return beside
	})
	x.exact = nil
	return x
}

// nodes returns every hostNode.
func (x *hostIndex) nodes() []*hostNode {
	var out []*hostNode
	for _, h := range []*hostNode{x.every, x.denyAll} {
		if h != nil {
			out = append(out, h)
		}
	}
	for _, h := range x.exact {
		out = append(out, h)
	}
	for _, h := range x.prefixes {
		out = append(out, h)
	}
	return x.labels.nodes(out)
}

func (n *labelNode) nodes(out []*hostNode) []*hostNode {
	for _, h := range []*hostNode{n.here, n.below} {
		if h != nil {
			out = append(out, h)
		}
	}
	for _, child := range n.children {
		out = child.nodes(out)
	}
	if n.one != nil {
		out = n.one.nodes(out)
	}
	return out
}
