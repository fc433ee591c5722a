package policy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// matcher is what a rule compares a request with, once host and path match. It
// is a cache line.
type matcher struct {
	methods     methodSet
	https, http portSet
	deny        bool
	passthrough bool
	websocket   bool
	plain       bool // carries no limit, edit or way to dial of its own
	quirks      canon.Quirks
	when        *condition
}

// rule is a compiled rule.
type rule struct {
	matcher

	out outcome // of an allow rule

	order int // of the files; allowlists come last
	id    uint32

	noSNI        bool
	policy, name string
	bodyLimit    int64 // requestBytes; 0 is none
	hosts        []hostPattern
	paths        []string
	record       RecordPath

	doc   *v1alpha1.AgentPolicy
	field string // where in doc
}

// conditional reports that the rule looks beyond host, scheme and port.
func (r *rule) conditional() bool {
	return !r.methods.all() || len(r.paths) > 0 || r.when != nil
}

// ports returns the rule's ports for a scheme.
func (m *matcher) ports(s canon.Scheme) *portSet {
	if s == canon.HTTP {
		return &m.http
	}
	return &m.https
}

// portSet is the ports that a rule is for. The zero value is none. Few rules
// have more than one, so those are elsewhere and the set is small.
type portSet struct {
	all   bool
	first uint16
	more  *[]uint16
}

func (p *portSet) has(port uint16) bool {
	return port != 0 && (p.all || p.first == port || p.more != nil && slices.Contains(*p.more, port))
}

func (p *portSet) empty() bool { return !p.all && p.first == 0 }

func (p *portSet) add(port uint16) {
	switch {
	case port == 0:
		p.all = true
	case p.first == 0:
		p.first = port
	case p.more == nil:
		p.more = &[]uint16{port}
	default:
		*p.more = append(*p.more, port)
	}
}

// list returns the ports, without order. It is empty for none and for all.
func (p *portSet) list() []uint16 {
	switch {
	case p.first == 0:
		return nil
	case p.more == nil:
		return []uint16{p.first}
	}
	return append([]uint16{p.first}, *p.more...)
}

// overlaps reports that some port is in both.
func (p *portSet) overlaps(q *portSet) bool {
	if p.all || q.all {
		return (p.all || p.first != 0) && (q.all || q.first != 0)
	}
	return slices.ContainsFunc(p.list(), q.has)
}

// covers reports that every port of q is in p.
func (p *portSet) covers(q *portSet) bool {
	if q.all {
		return p.all
	}
	return !slices.ContainsFunc(q.list(), func(port uint16) bool { return !p.has(port) })
}

// methodSet is the methods that a rule is for. The zero value is all of them,
// which is what a rule that names none says.
type methodSet struct {
	bits  uint16 // by methodBit
	other *[]string
}

// methodBit returns the bit of a usual method, or 0.
func methodBit(method string) uint16 {
	switch method {
	case "GET":
		return 1 << 0
	case "POST":
		return 1 << 1
	case "PUT":
		return 1 << 2
	case "PATCH":
		return 1 << 3
	case "DELETE":
		return 1 << 4
	case "HEAD":
		return 1 << 5
	case "OPTIONS":
		return 1 << 6
	}
	return 0
}

func newMethodSet(methods []string) (s methodSet) {
	var other []string
	for _, method := range methods {
		if bit := methodBit(method); bit != 0 {
			s.bits |= bit
		} else {
			other = append(other, method)
		}
	}
	if other != nil {
		s.other = &other
	}
	return s
}

func (s *methodSet) all() bool { return s.bits == 0 && s.other == nil }

// has answers for a method and its methodBit.
func (s *methodSet) has(method string, bit uint16) bool {
	switch {
	case s.bits&bit != 0, s.all():
		return true
	case bit != 0:
		return false
	}
	return s.other != nil && slices.Contains(*s.other, method)
}

// rare returns the methods without a bit.
func (s *methodSet) rare() []string {
	if s.other == nil {
		return nil
	}
	return *s.other
}

// covers reports that every method of q is in s.
func (s *methodSet) covers(q *methodSet) bool {
	return s.all() || !q.all() && q.bits&^s.bits == 0 && !slices.ContainsFunc(q.rare(), func(m string) bool { return !slices.Contains(s.rare(), m) })
}

// hostNode is what the rules of one host pattern say. What every decision looks
// at comes first.
type hostNode struct {
	pattern   string
	restricts bool     // some rule looks at methods, paths or a condition
	any       *entries // rules without paths; nil for none
	root      pathNode // of the rules with paths
	*hostMore
}

// hostMore is the part of a hostNode that a plain yes does not need.
type hostMore struct {
	denies  []entry      // every deny rule
	guards  bool         // some deny rule has paths
	whens   []*condition // every rule's condition
	bars    []*rule      // deny rules by host, scheme and port alone: nothing gets past them
	tunnels []*rule      // passthrough rules
	ends    []end        // where an allow rule leads
	record  RecordPath   // the least that a rule of the host wants recorded of a path
	detail  string       // what this host's rules allow, for the text of a refusal
	hints   []string
}

func newHostNode(p hostPattern) *hostNode {
	return &hostNode{pattern: p.text, hostMore: &hostMore{}}
}

// end is a place that some allow rule leads to. The hostNode holds one for
// each, however many rules there are.
type end struct {
	scheme canon.Scheme // HTTPS, HTTP or Tunnel
	port   uint16
	noSNI  bool
	rule   *rule // the first
}

const maxHints = 8 // rules that a refusal's text lists

func (h *hostNode) add(r *rule) {
	h.restricts = h.restricts || r.conditional()
	if r.when != nil {
		h.whens = append(h.whens, r.when)
	}
	h.record = max(h.record, r.record)
	switch {
	case r.deny && !r.conditional():
		h.bars = append(h.bars, r)
		h.denies = append(h.denies, newEntry(r, ""))
	case r.deny:
		h.denies = append(h.denies, newEntry(r, ""))
		h.guards = h.guards || len(r.paths) > 0
	case r.passthrough:
		h.tunnels = append(h.tunnels, r)
		h.reach(canon.Tunnel, &r.https, r)
		return
	default:
		h.reach(canon.HTTPS, &r.https, r)
		h.reach(canon.HTTP, &r.http, r)
		if len(h.hints) <= maxHints {
			h.hints = append(h.hints, r.hint())
		}
	}
	if len(r.paths) == 0 {
		if h.any == nil {
			h.any = &entries{}
		}
		h.any.add(newEntry(r, ""))
	}
	for _, path := range r.paths {
		h.root.add(path, r)
	}
}

func (h *hostNode) reach(scheme canon.Scheme, ports *portSet, r *rule) {
	for _, port := range ports.list() {
		known := slices.ContainsFunc(h.ends, func(e end) bool { return e.scheme == scheme && e.port == port && e.noSNI == r.noSNI })
		if !known {
			h.ends = append(h.ends, end{scheme, port, r.noSNI, r})
		}
	}
}

// finish is called once, after the last add.
func (h *hostNode) finish() {
	h.root.compress()
	if len(h.hints) > maxHints {
		h.hints[maxHints] = "…"
	}
	h.detail = strings.Join(h.hints, "; ")
	h.hints = nil
}

// hint says in a few words what an allow rule allows.
func (r *rule) hint() string {
	var b strings.Builder
	methods := slices.Clone(r.methods.rare())
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if r.methods.bits&methodBit(m) != 0 {
			methods = append(methods, m)
		}
	}
	if r.methods.all() {
		methods = []string{"any method"}
	}
	b.WriteString(strings.Join(methods, " or "))
	b.WriteByte(' ')
	paths := r.paths
	if len(paths) == 0 {
		paths = []string{"any path"}
	}
	if more := len(paths) - 3; more > 0 {
		paths = append(slices.Clone(paths[:3]), strconv.Itoa(more)+" more paths")
	}
	for i, path := range paths {
		if i > 0 {
			b.WriteString(" or ")
		}
		if !printable(path) {
			path = strconv.QuoteToASCII(path)
		}
		b.WriteString(path)
	}
	if r.websocket {
		b.WriteString(", also WebSocket")
	}
	if r.when != nil {
		b.WriteString(", under a condition")
	}
	return b.String()
}
