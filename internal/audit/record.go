package audit

import (
	"net/netip"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
)

// Event is the name of a record. The zero value is no event: such a record is
// refused.
type Event uint8

// The events, which are the aegrail library's.
const (
	NoEvent Event = iota
	EngineStart
	EngineShutdown
	EngineHeartbeat
	EgressAllowed
	EgressDenied
	EgressError
)

// String returns the name as it stands in a record, or "" for NoEvent and for
// a value that is none of the above.
func (e Event) String() string {
	switch e {
	case EngineStart:
		return "engine_start"
	case EngineShutdown:
		return "engine_shutdown"
	case EngineHeartbeat:
		return "engine_heartbeat"
	case EgressAllowed:
		return "egress_allowed"
	case EgressDenied:
		return "egress_denied"
	case EgressError:
		return "egress_error"
	default:
		return ""
	}
}

// Phase says which of a request's records this is.
type Phase uint8

// A request has a decision before anything of it is forwarded and, when it was
// forwarded, a completion after. A denial has the decision alone.
const (
	NoPhase Phase = iota
	PhaseDecision
	PhaseComplete
)

// String returns the word that stands in payload.phase.
func (p Phase) String() string {
	switch p {
	case PhaseDecision:
		return "decision"
	case PhaseComplete:
		return "complete"
	default:
		return ""
	}
}

// PathForm says how much of a path a record keeps: some services carry secrets
// in their paths.
type PathForm uint8

// The forms of a path in a record.
const (
	PathFull    PathForm = iota // payload.path
	PathPattern                 // payload.path_pattern alone: nothing of the path, not even its length
	PathHash                    // payload.path_len and path_sha256
)

// Agent is whose request it is. Namespace, ServiceAccount and Pod are vouched
// for by Kubernetes, Claimed is the pod's own label, Identity is what the
// engine was started with (a laptop). InvokingUser comes from a verified token
// or is empty.
type Agent struct {
	Identity, Namespace, ServiceAccount, Pod, Claimed, InvokingUser string
}

// Limits of a record's fields in bytes, before escapes. A longer field is cut
// at the limit, and its whole length and hash stand beside it (ATTACKS L2).
// With every byte escaped to six characters a record stays below 64 KiB.
const (
	maxPath      = 2048
	maxDetail    = 1024
	maxName      = 512 // host, SNI, identities
	maxMethod    = 64
	maxWord      = 256 // our own words: rule, policy, reason, …; cut without a hash
	maxQueryKeys = 64  // keys in the list
	maxQueryKey  = 64  // bytes of each
)

// Record is what is known of one request, refusal or engine event. The caller
// keeps one and reuses it: Decide, Complete and Refuse read it during the call
// only and keep no part of it. Fields with zero values are left out of the
// record, except the counts and the duration of a completion.
//
// Nothing here can hold a header's value, a cookie, a query value or a body
// (ATTACKS L11), and a Path is cut at "?" and "#", a Host behind the last "@",
// in case a caller hands over a target that could not be parsed. Detail is
// free text: whoever sets it leaves such values out.
type Record struct {
	Event Event
	Phase Phase
	ID    uint64 // the request's; payload.id as 16 hex digits

	Agent  *Agent // nil: nobody, the engine's own identity stands in
	Client netip.AddrPort
	Kind   string // connect, plain, transparent, dns

	Scheme      string
	Host        string
	Port        uint16
	Method      string
	Path        []byte
	PathForm    PathForm
	PathPattern string   // with PathForm PathPattern
	QueryKeys   []string // names, never values
	SNI         string   // where it says something that Host does not

	QueryKeysLen int // how many names there were, if that is more than QueryKeys has

	Rule, Policy, PolicyRevision string
	Reason                       string // one of our own words
	Detail                       string // for people; capped
	Observed                     bool   // policy said deny, observe mode let it pass
	Attempt                      int    // from 1; each attempt is in the log before it is sent

	StatusCode     int
	RequestBytes   int64 // of the body as it crossed the wire
	ResponseBytes  int64
	RequestSHA256  []byte // 64 hex digits; empty where nothing was digested
	ResponseSHA256 []byte
	DigestKeyID    string // the digests are HMAC-SHA256 under this key
	Truncated      bool   // a body was cut: sizes and digests are of the part that came
	Duration       time.Duration
	Upstream       netip.AddrPort
	UpstreamProto  string
	TLSVersion     string
	ALPN           string
	Mitm           bool // TLS was terminated and the content was read

	Count       int64     // how many refusals, or lost records, this one stands for
	First, Last time.Time // with Count

	// Not written: for package metrics alone.
	DecisionTime, UpstreamTime, AddedTime time.Duration
}

// engineFacts is what only the log itself adds to its own records.
type engineFacts struct {
	durability string
	engine     map[string]string
	resumed    bool
	torn       *tornTail

	checkpoint string            // a signed note over the records before this one
	frontier   []checkpoint.Hash // in the first record of a segment: the tree of all records before it
	segment    string            // … and the base name of the segment before
}

// tornTail is the end of a file that was cut off because it was no whole
// record.
type tornTail struct {
	bytes  int64
	file   string // where it is kept, base name
	sha256 string
}
