package policy

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// Verdict is what becomes of a request. The zero value denies.
type Verdict uint8

const (
	Deny Verdict = iota
	Allow
	Hold // for approvals; nothing gives it yet
)

// String returns the word that logs use.
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Hold:
		return "hold"
	default:
		return "deny"
	}
}

// Reason says why a request is denied, in the words of the audit log.
type Reason string

const (
	NoPolicyForAgent    Reason = "no_policy_for_agent"
	NotInAllowlist      Reason = "not_in_allowlist" // no rule names the host
	SchemeNotAllowed    Reason = "scheme_not_allowed"
	PortNotAllowed      Reason = "port_not_allowed"
	PathNotAllowed      Reason = "path_not_allowed"
	MethodNotAllowed    Reason = "method_not_allowed"
	WebSocketNotAllowed Reason = "websocket_not_allowed"
	ConditionNotMet     Reason = "condition_not_met"
	DeniedByRule        Reason = "denied_by_rule"
	TunnelNotAllowed    Reason = "tunnel_not_allowed"

	// The following are never relaxed by observe.
	AmbiguousPath     Reason = "ambiguous_path"
	MethodOverride    Reason = "method_override"
	BadBody           Reason = "bad_body"
	BodyTooLarge      Reason = "body_too_large"
	UpgradeNotAllowed Reason = "upgrade_not_allowed" // to something other than WebSocket
)

// relaxes reports that observe lets a denial with this reason pass.
func (r Reason) relaxes() bool {
	switch r {
	case AmbiguousPath, MethodOverride, BadBody, BodyTooLarge, UpgradeNotAllowed, TunnelNotAllowed:
		return false
	}
	return true
}

// RecordPath says how much of the path the audit log holds. More is less.
type RecordPath uint8

const (
	RecordFull    RecordPath = iota
	RecordPattern            // Decision.Pattern instead
	RecordHash               // SHA-256 of the path
)

// String returns the policy file's word.
func (r RecordPath) String() string {
	switch r {
	case RecordPattern:
		return "pattern"
	case RecordHash:
		return "hash"
	default:
		return "full"
	}
}

// Limit is what package quota counts for a rule and a principal.
type Limit struct {
	Scope       string        // policy/rule
	Rate        int           // requests per Per; 0 is no rate
	Per         time.Duration // of Rate
	MaxRequests int64         // for the life of the engine; 0 is no limit
}

// Egress says how upstream may dial for a request. The zero value is the
// default: public addresses, the system's roots, no pins.
type Egress struct {
	Key       string         // fingerprint of what follows; "" for the default
	Addresses []netip.Prefix // the address guard lets these through
	Roots     *x509.CertPool // instead of the default roots; nil: those
	SPKIPins  [][32]byte     // SHA-256 of a public key that the chain must have; nil: any
}

// Keeps reports that what was dialled by old may go on under e: that e lets all of
// old's addresses through, and takes every pin that was taken then. Other roots are
// for the next connection.
func (e *Egress) Keeps(old *Egress) bool {
	for _, was := range old.Addresses {
		if !slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Bits() <= was.Bits() && p.Contains(was.Addr()) }) {
			return false
		}
	}
	if len(e.SPKIPins) == 0 {
		return true
	}
	return len(old.SPKIPins) > 0 && !slices.ContainsFunc(old.SPKIPins, func(pin [32]byte) bool { return !slices.Contains(e.SPKIPins, pin) })
}

// Decision is the answer to one request.
type Decision struct {
	Verdict  Verdict
	Reason   Reason // of a denial, also one that observe let pass
	Rule     string // that allowed, denied or wants the body; "" if no rule did
	Policy   string
	Observed bool // policy said no and observe lets it pass: Verdict is Allow

	NeedBody  bool  // read the body, at most BodyLimit, then ask DecideBody. Verdict is Deny meanwhile
	BodyLimit int64 // bytes on the wire

	Limits       []Limit // what quota must count; shared, not to be changed
	RequestBytes int64   // the most that may be sent; 0: no limit
	RecordPath   RecordPath
	Pattern      string  // of the path that matched; "" for a rule without paths
	Egress       *Egress // nil unless Allow
	WebSocket    bool    // a rule allows the WebSocket that the request asks for
	Detail       string  // of a denial: what this agent may do on that host

	out  *outcome
	req  *canon.Request
	id   uint64
	view *View // whose conditions had a say; nil: none had
}

// Permit allows one request to be sent. Only Decision.Permit makes one that
// covers anything.
type Permit struct {
	req    *canon.Request
	id     uint64
	egress *Egress
	edits  []edit
	view   *View // as in the Decision
}

// Permit makes the header edits of the rules that allowed req and returns the
// permit for it. It is the zero Permit, and nothing is edited, unless d allows
// and was made for req.
func (d Decision) Permit(req *canon.Request) Permit {
	if d.Verdict != Allow || d.out == nil || d.Egress == nil || req == nil || d.req != req || d.id != req.ID() {
		return Permit{}
	}
	for _, e := range d.out.edits {
		if e.remove {
			req.RemoveField(e.name)
		} else {
			req.SetField(e.name, e.value)
		}
	}
	return Permit{req: req, id: d.id, egress: d.Egress, edits: d.out.edits, view: d.view}
}

// Covers reports that the permit was made for req, and that req is still the
// same request.
func (p Permit) Covers(req *canon.Request) bool {
	return p.req != nil && p.req == req && p.id == req.ID()
}

// Egress says how to dial. It is nil for the zero Permit.
func (p Permit) Egress() *Egress { return p.egress }

// Edits reports that a rule sets or removes fields of that name. The edits are
// made to the head: a trailer of the name would undo them at an origin that
// merges the two, so upstream refuses it.
func (p Permit) Edits(name []byte) bool {
	for i := range p.edits {
		if canon.SameField(name, p.edits[i].name) {
			return true
		}
	}
	return false
}

// Tests reports that a condition of a rule for the request's host may look at fields
// of that name: one in a trailer would be another than was judged to an origin that
// merges the two.
func (p Permit) Tests(name []byte) bool {
	return p.view != nil && p.view.tests(&p.req.Authority, name)
}

// edit is one change to the headers.
type edit struct {
	name, value string
	remove      bool
}

// outcome is what an allow rule, or several that match together, come to.
type outcome struct {
	rule, policy string
	limits       []Limit
	requestBytes int64
	record       RecordPath
	recordSet    bool // some rule said so
	egress       *Egress
	roots        []*rootsFile // of egress, to unite
	edits        []edit
}

// HostVerdict says what is possible for a host and port before any request
// exists. Where Possible is false no leaf is minted and no name resolved.
type HostVerdict struct {
	Possible    bool
	HTTP, HTTPS bool   // inspected, plain or over TLS
	Passthrough bool   // a rule wants the tunnel unseen; it goes before HTTPS
	NoSNI       bool   // a ClientHello without a name may be taken for the CONNECT target
	Reason      Reason // where nothing is possible
	Rule        string // the first that makes something possible, or the one that denies
	Policy      string
	Observed    bool // only observe makes it possible
}
