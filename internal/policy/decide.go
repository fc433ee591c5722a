package policy

import (
	"cmp"
	"errors"
	"slices"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// stage is how near a request came to being allowed by some rule.
type stage uint8

const (
	atPath stage = iota
	atMethod
	atWebSocket
	atCondition
)

// pathQuirks are those that make a path ambiguous.
const pathQuirks = canon.EncodedSlash | canon.Semicolon | canon.DoubleSlash

// match is one decision while it is made. It lives on the stack.
type match struct {
	view   *View
	req    *canon.Request
	method uint16 // methodBit

	hosts      hostList
	restricted bool // some rule of the host looks at methods, paths or a condition
	denyOnly   bool // look at deny rules alone
	blind      bool // neither method nor path is certain

	denied  *rule
	allowed allowList
	stage   stage

	facts  *facts
	bodyIn bool // facts holds the body, or there is none

	pendingDeny, pendingAllow, pendingGrant bool  // rules that wait for the body; Grant: with limits or edits
	asker                                   *rule // the first of them
	bodyLimit                               int64
}

// allowList holds the allow rules that matched, ordered.
type allowList struct {
	n     int
	rules [8]*rule
	more  []*rule
	first *entry // of the first in order
}

func (l *allowList) has(r *rule) bool {
	return slices.Contains(l.rules[:min(l.n, len(l.rules))], r) || slices.Contains(l.more, r)
}

func (l *allowList) add(e *entry) {
	if l.first == nil || e.rule.order < l.first.rule.order {
		l.first = e
	}
	if l.n < len(l.rules) {
		l.rules[l.n] = e.rule
	} else {
		l.more = append(l.more, e.rule)
	}
	l.n++
}

// Decide judges a request by its head. Where a rule that matches the head reads
// the body, the decision says NeedBody and denies until DecideBody is asked. It
// does not allocate unless a condition is evaluated or the request is denied.
func (v *View) Decide(req *canon.Request) Decision {
	if req.Scheme == canon.HTTPS && req.Quirks == 0 && req.Upgrade == canon.NoUpgrade {
		if c := v.index.names.card(req.Host); c != nil && c.allows(req, methodBit(req.Method)) {
			return c.decision(req)
		}
	}
	m := match{view: v, req: req, bodyIn: !hasBody(req)}
	return m.decide()
}

// DecideBody judges a request of which Decide said NeedBody. Body is the whole
// body as it was sent, content encoding and all.
func (v *View) DecideBody(req *canon.Request, body []byte) Decision {
	head := v.Decide(req)
	if !head.NeedBody {
		return head
	}
	refuse := func(reason Reason, detail string) Decision {
		return Decision{Reason: reason, Rule: head.Rule, Policy: head.Policy, RecordPath: head.RecordPath, Detail: detail}
	}
	if int64(len(body)) > head.BodyLimit {
		return refuse(BodyTooLarge, "")
	}
	m := match{view: v, req: req, bodyIn: true, facts: &facts{req: req, body: map[string]any{}}}
	value, present, err := readBody(req, body, head.BodyLimit)
	switch {
	case errors.Is(err, errTooLarge):
		return refuse(BodyTooLarge, err.Error())
	case err != nil:
		return refuse(BadBody, err.Error())
	case present:
		m.facts.body["json"] = value
	}
	return m.decide()
}

func (m *match) decide() Decision {
	switch {
	case m.req.Scheme == canon.Tunnel:
		return m.tunnel()
	case m.req.Scheme != canon.HTTPS && m.req.Scheme != canon.HTTP:
		return m.refuse(SchemeNotAllowed, nil)
	case m.req.Upgrade == canon.OtherUpgrade:
		return m.refuse(UpgradeNotAllowed, nil)
	case m.view.nobody:
		return m.refuse(NoPolicyForAgent, nil)
	}
	m.method = methodBit(m.req.Method)
	m.view.index.find(&m.req.Authority, &m.hosts)
	for i := range m.hosts.n {
		m.restricted = m.restricted || m.hosts.at(i).restricts
	}
	m.walk()
	if m.denied == nil && m.req.Quirks != 0 {
		m.otherReadings()
	}
	return m.conclude()
}

// walk visits the rules that match by host and path.
func (m *match) walk() {
	if slices.Contains(m.req.Path, '%') {
		var buf [512]byte
		m.walkPath(appendMatching(buf[:0], m.req.Path))
		return
	}
	m.walkPath(m.req.Path)
}

func (m *match) walkPath(path []byte) {
	for i := range m.hosts.n {
		h := m.hosts.at(i)
		h.any.visit(m)
		if len(path) > 0 && path[0] == '/' {
			h.root.enter(m, path)
		}
	}
}

// otherReadings visits the deny rules once more for what quirks may hide from
// them.
func (m *match) otherReadings() {
	m.denyOnly = true
	if m.req.Quirks&canon.MethodOverride != 0 {
		m.blind = true
		for i := range m.hosts.n {
			h := m.hosts.at(i)
			for j := range h.denies {
				m.visit(&h.denies[j])
			}
		}
		m.blind = false
	}
	guarded := false
	for i := range m.hosts.n {
		guarded = guarded || m.hosts.at(i).guards
	}
	if quirks := m.req.Quirks & pathQuirks; guarded && quirks != 0 {
		readings(m.req.Path, quirks, func(path []byte) {
			for i := range m.hosts.n {
				m.hosts.at(i).root.enter(m, path)
			}
		})
	}
	m.denyOnly = false
}

// visit looks at a rule whose host and path match.
func (m *match) visit(e *entry) {
	switch {
	case e.deny:
		m.visitDeny(e.rule)
	case m.denyOnly, !e.ports(m.req.Scheme).has(m.req.Port):
	case !e.methods.has(m.req.Method, m.method):
		m.stage = max(m.stage, atMethod)
	case !m.optedIn(e.quirks):
	case m.req.Upgrade == canon.WebSocket && !e.websocket:
		m.stage = max(m.stage, atWebSocket)
	case m.allowed.has(e.rule):
	case e.when == nil:
		m.allowed.add(e)
	default:
		holds, pending := m.holds(e.rule)
		switch {
		case pending:
			m.pendingAllow = true
			m.pendingGrant = m.pendingGrant || !e.plain
		case holds == yes:
			m.allowed.add(e)
		default:
			m.stage = max(m.stage, atCondition)
		}
	}
}

func (m *match) visitDeny(r *rule) {
	switch {
	case m.denied != nil && m.denied.order <= r.order:
		return
	case !r.ports(m.req.Scheme).has(m.req.Port):
		return
	case !m.blind && !r.methods.has(m.req.Method, m.method):
		return
	}
	if r.when != nil {
		answer, pending := m.holds(r)
		if pending {
			m.pendingDeny = true
			return
		}
		if answer == no {
			return
		}
	}
	m.denied = r
}

// optedIn reports that a rule which opts in to quirks takes the request's. A
// method override matters only where some rule looks at methods or paths, or has
// a condition, which may look at both.
func (m *match) optedIn(quirks canon.Quirks) bool {
	missing := m.req.Quirks &^ quirks
	if !m.restricted {
		missing &^= canon.MethodOverride
	}
	return missing == 0
}

// answer is what a condition says. The zero value is that it could not be
// evaluated.
type answer uint8

const (
	failed answer = iota
	no
	yes
)

// holds evaluates a rule's condition, or says that it waits for the body.
func (m *match) holds(r *rule) (a answer, pending bool) {
	if r.when.needBody {
		switch {
		case m.req.GRPC || m.req.Upgrade != canon.NoUpgrade: // a stream has no end to read to
			return failed, false
		case !m.bodyIn:
			limit := r.bodyLimit
			if limit == 0 {
				limit = defaultBodyLimit
			}
			if m.bodyLimit == 0 || limit < m.bodyLimit {
				m.bodyLimit = limit
			}
			if m.asker == nil || r.order < m.asker.order {
				m.asker = r
			}
			return failed, true
		}
	}
	if m.facts == nil {
		m.facts = &facts{req: m.req, body: map[string]any{}}
	}
	holds, err := r.when.holds(m.facts)
	switch {
	case err != nil:
		return failed, false
	case holds:
		return yes, false
	}
	return no, false
}

// conclude makes the decision of what was visited.
func (m *match) conclude() Decision {
	if m.denied != nil {
		return m.refuse(DeniedByRule, m.denied)
	}
	if m.allowed.n == 0 && !m.pendingAllow {
		return m.refuse(m.whyNot(), nil)
	}
	var out *outcome
	if m.allowed.n > 0 {
		out = m.view.outcomeOf(m.allowed.ordered())
	}
	if m.pendingDeny || m.pendingGrant || m.allowed.n == 0 {
		return m.askForBody(out)
	}
	if out.requestBytes > 0 && m.req.Length > out.requestBytes {
		return m.refuse(BodyTooLarge, nil)
	}
	return Decision{
		Verdict: Allow, Rule: out.rule, Policy: out.policy,
		Limits: out.limits, RequestBytes: out.requestBytes, RecordPath: out.record, Pattern: m.allowed.first.pattern,
		Egress: out.egress, WebSocket: m.req.Upgrade == canon.WebSocket,
		out: out, req: m.req, id: m.req.ID(), view: m.view,
	}
}

// askForBody denies until the body is there. Out is what is allowed already, or
// nil.
func (m *match) askForBody(out *outcome) Decision {
	limit := m.bodyLimit
	if out != nil && out.requestBytes > 0 {
		limit = min(limit, out.requestBytes)
	}
	if m.req.Length > limit {
		return m.refuse(BodyTooLarge, m.asker)
	}
	return Decision{
		Reason: ConditionNotMet, Rule: m.asker.name, Policy: m.asker.policy,
		NeedBody: true, BodyLimit: limit, RequestBytes: limit, RecordPath: m.record(),
	}
}

func (l *allowList) ordered() []*rule {
	rules := l.rules[:min(l.n, len(l.rules))]
	if l.n > len(l.rules) {
		rules = append(slices.Clone(rules), l.more...)
	}
	slices.SortFunc(rules, func(a, b *rule) int { return cmp.Compare(a.order, b.order) })
	return rules
}

// whyNot finds the reason of a denial that no rule made.
func (m *match) whyNot() Reason {
	named, scheme, port := false, false, false
	for i := range m.hosts.n {
		for _, e := range m.hosts.at(i).ends {
			named = named || e.scheme != canon.Tunnel
			scheme = scheme || e.scheme == m.req.Scheme
			port = port || e.scheme == m.req.Scheme && e.port == m.req.Port
		}
	}
	switch {
	case !named:
		return NotInAllowlist
	case !scheme:
		return SchemeNotAllowed
	case !port:
		return PortNotAllowed
	}
	if hard := m.ambiguity(); hard != "" {
		return hard
	}
	switch m.stage {
	case atMethod:
		return MethodNotAllowed
	case atWebSocket:
		return WebSocketNotAllowed
	case atCondition:
		return ConditionNotMet
	}
	return PathNotAllowed
}

// tunnel judges a passthrough connection, by host and port alone.
func (m *match) tunnel() Decision {
	if m.view.nobody {
		return m.refuseTunnel(NoPolicyForAgent, nil)
	}
	m.view.index.find(&m.req.Authority, &m.hosts)
	if bar := m.view.bar(&m.hosts, canon.Tunnel, m.req.Port); bar != nil {
		return m.refuseTunnel(DeniedByRule, bar)
	}
	for i := range m.hosts.n {
		for _, r := range m.hosts.at(i).tunnels {
			if r.https.has(m.req.Port) && !m.allowed.has(r) {
				m.allowed.add(&entry{rule: r}) // by host only
			}
		}
	}
	if m.allowed.n == 0 {
		return m.refuseTunnel(TunnelNotAllowed, nil)
	}
	return m.conclude()
}

// refuseTunnel denies whether or not the agent is observed.
func (m *match) refuseTunnel(reason Reason, r *rule) Decision {
	d := Decision{Reason: reason}
	if r != nil {
		d.Rule, d.Policy = r.name, r.policy
	}
	return d
}

// refuse denies, or lets the denial pass where the agent is observed.
func (m *match) refuse(reason Reason, r *rule) Decision {
	relax := m.view.observe && reason.relaxes() && m.named()
	if hard := m.ambiguity(); relax && hard != "" {
		reason, relax = hard, false
	}
	d := m.refuseTunnel(reason, r)
	d.RecordPath = m.record()
	if relax {
		out := m.view.set.observed
		d.Verdict, d.Observed, d.Egress, d.Limits = Allow, true, out.egress, out.limits
		d.WebSocket = m.req.Upgrade == canon.WebSocket
		d.out, d.req, d.id, d.view = out, m.req, m.req.ID(), m.view
		return d
	}
	d.Detail = m.detail()
	return d
}

// named reports that the request says where it goes, without which not even
// observe lets it pass.
func (m *match) named() bool {
	return (m.req.Scheme == canon.HTTPS || m.req.Scheme == canon.HTTP) && m.req.Host != "" && m.req.Port != 0
}

// ambiguity returns the reason to refuse a request that no rule opted in to
// and that has more than one reading, or "".
func (m *match) ambiguity() Reason {
	switch {
	case m.req.Quirks&pathQuirks != 0:
		return AmbiguousPath
	case m.req.Quirks&canon.MethodOverride != 0 && m.restricted:
		return MethodOverride
	}
	return ""
}

// record is how a denied request's path is recorded: as the most careful rule
// of its host wants.
func (m *match) record() RecordPath {
	var most RecordPath
	for i := range m.hosts.n {
		most = max(most, m.hosts.at(i).record)
	}
	if most == RecordPattern { // there is no pattern that matched
		return RecordHash
	}
	return most
}

// detail lists what this agent may do on the host.
func (m *match) detail() string {
	text := ""
	for i := range m.hosts.n {
		if d := m.hosts.at(i).detail; d != "" && text != "" {
			text += "; " + d
		} else {
			text += d
		}
	}
	if text == "" {
		return ""
	}
	return "this agent may send to the host: " + text
}
