package policy

import (
	"strings"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// Most rules of a large policy are of one shape: they allow methods on a path, or
// on every path, of a host that no other rule speaks of. What such a rule comes to
// is known beforehand, and a request that it allows is answered by one look at a
// card. The rules are:
//
//   - a card only ever says what the whole decision would, which a test holds it to;
//   - it says yes or nothing: what it does not allow, is decided as if there were none;
//   - it is two cache lines side by side, the texts that are compared among them: with
//     ten thousand hosts, what a decision costs is memory that is not in a cache.
type card struct {
	text  [cardText]byte // the host, then the path
	words string         // the rule's name, then the path as it was written
	grant *outcome       // shared by rules that grant the same

	methods          uint16 // by methodBit; 0: no card
	port             uint16
	host, path, rule uint8 // lengths; path 0 is every path
}

const (
	cardText = 96 // longer names and paths have no card
	maxByte  = 1<<8 - 1
)

// everyMethod is all that have a bit.
const everyMethod = 1<<7 - 1

// newCard returns the card of a host with an exact name, or an empty one. rules
// are those of patterns that also match the host.
func newCard(h *hostNode, rules []*rule) card {
	e := h.only()
	if e == nil || e.deny || e.passthrough || e.when != nil || e.https.all || e.https.first == 0 || e.https.more != nil || e.rule.out.requestBytes > 0 {
		return card{}
	}
	c := card{port: e.https.first, methods: e.methods.bits, grant: &e.rule.out}
	if e.methods.all() {
		c.methods = everyMethod
	}
	for _, r := range rules {
		switch {
		case r.passthrough: // judged by Tunnel alone
		case r.methods.all():
			return card{}
		default:
			c.methods &^= r.methods.bits
		}
	}
	path := h.root.literal
	if len(h.pattern)+len(path) > cardText || len(e.rule.out.rule) > maxByte || strings.Contains(path, "%") {
		return card{}
	}
	c.host, c.path, c.rule = uint8(len(h.pattern)), uint8(len(path)), uint8(len(e.rule.out.rule))
	copy(c.text[copy(c.text[:], h.pattern):], path)
	c.words = e.rule.out.rule + e.pattern
	return c
}

// only returns the one entry of a host that has one rule and that with no path or
// one without stars, or nil.
func (h *hostNode) only() *entry {
	root := &h.root
	var e *entries
	switch {
	case len(h.denies) > 0 || root.on != nil:
		return nil
	case h.any == nil:
		e = &root.here
	case root.here.first.rule == nil:
		e = h.any
	default:
		return nil
	}
	if e.first.rule == nil || len(e.more) > 0 || h.any == nil && root.literal == "" {
		return nil
	}
	return &e.first
}

// allows reports that the card allows req, of which the host is the card's.
func (c *card) allows(req *canon.Request, method uint16) bool {
	return c.methods&method != 0 && c.port == req.Port &&
		(c.path == 0 || string(req.Path) == string(c.text[c.host:int(c.host)+int(c.path)]))
}

// decision is the allowance of req.
func (c *card) decision(req *canon.Request) Decision {
	return Decision{
		Verdict: Allow, Rule: c.words[:c.rule], Policy: c.grant.policy,
		Limits: c.grant.limits, RecordPath: c.grant.record, Pattern: c.words[c.rule:],
		Egress: c.grant.egress, out: c.grant, req: req, id: req.ID(),
	}
}

// share makes one of outcomes that differ in nothing but the rule's name. It does
// so for the plain ones.
func share(c *card, shared map[outcomeKey]*outcome) {
	o := c.grant
	if o == nil || len(o.limits)+len(o.roots)+len(o.edits) > 0 {
		return
	}
	key := outcomeKey{o.policy, o.record, o.recordSet, o.egress}
	if shared[key] == nil {
		shared[key] = o
	}
	c.grant = shared[key]
}

// outcomeKey is what a plain outcome comes to.
type outcomeKey struct {
	policy    string
	record    RecordPath
	recordSet bool
	egress    *Egress
}
