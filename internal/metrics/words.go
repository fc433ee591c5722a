package metrics

import "github.com/arpitcoder/aegrail-engine/internal/audit"

// The rule of this file is: every value that a label can have stands here.

type verdict uint8

const (
	allowed verdict = iota
	observed
	denied
	failed
	verdicts
)

var verdictWords = [verdicts]string{"allowed", "observed", "denied", "error"}

// verdictOf returns what became of a request, and false for a record that is
// not its last.
func verdictOf(r *audit.Record) (verdict, bool) {
	switch r.Event {
	case audit.EgressAllowed:
		if r.Observed {
			return observed, r.Phase == audit.PhaseComplete
		}
		return allowed, r.Phase == audit.PhaseComplete
	case audit.EgressDenied:
		return denied, true
	case audit.EgressError:
		return failed, r.Phase != audit.PhaseDecision
	default:
		return 0, false
	}
}

type methodClass uint8

const (
	noMethod methodClass = iota
	read
	write
	remove
	connect
	otherMethod
	methodClasses
)

var methodWords = [methodClasses]string{"none", "read", "write", "delete", "connect", "other"}

// classOf sorts methods by what they do (RFC 9110 section 9.2.1).
func classOf(method string) methodClass {
	switch method {
	case "":
		return noMethod
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return read
	case "POST", "PUT", "PATCH":
		return write
	case "DELETE":
		return remove
	case "CONNECT":
		return connect
	default:
		return otherMethod
	}
}

// reasonWords is the engine's reasons; the first stands for none, the second
// for those that are missing here.
var reasonWords = [...]string{
	"none", "other",
	// framing and heads
	"bad_framing", "bad_header", "bad_request_line", "head_too_large", "too_many_fields", "bad_chunk", "bad_trailer",
	"bad_expect", "bad_response", "request_timeout", "client_closed", "bad_version", "bad_method",
	// names, paths, queries
	"bad_host", "bad_path", "ambiguous_path", "bad_query", "bad_target", "bad_port", "name_mismatch", "method_override",
	"bad_authority", "bad_upgrade",
	// connections
	"bad_hello", "no_sni", "ech", "no_application_protocol", "unknown_protocol", "unknown_agent", "too_many_connections",
	"client_rejected_certificate", "handshake_failed", "handshake_timeout", "mint_failed", "not_permitted_by_ca", "own_address",
	// policy
	"not_in_allowlist", "method_not_allowed", "path_not_allowed", "condition_not_met", "denied_by_rule", "no_policy_for_agent",
	"port_not_allowed", "scheme_not_allowed", "bad_body", "body_too_large", "websocket_not_allowed", "tunnel_not_allowed", "held",
	"policy_changed", "no_policy",
	// limits
	"request_count_exceeded", "rate_limited", "record_budget_exceeded",
	// upstream
	"resolve_failed", "address_denied", "dial_failed", "upstream_tls", "upstream_certificate", "upstream_certificate_expired",
	"upstream_certificate_name", "upstream_certificate_unknown", "upstream_timeout", "upstream_closed", "upstream_reset",
	"upstream_proxy_failed", "pin_mismatch",
	// bodies and streams
	"aborted", "body_timeout", "websocket_protocol_error", "shutdown",
	// the engine
	"audit_failed", "internal_error",
}

const noReason, otherReason = 0, 1

// Handshake is how a TLS handshake with a client ended.
type Handshake uint8

// The outcomes. A client that does not trust our certificate has its own name:
// it is the one an operator can mend, by giving that client the bundle.
const (
	HandshakeFailed         Handshake = iota // for a reason that is none of those below
	HandshakeFull                            // succeeded, with certificates
	HandshakeResumed                         // succeeded, from a ticket
	HandshakeClientRejected                  // bad_certificate, unknown_ca, certificate_unknown, certificate_expired
	HandshakeBadHello                        // not a ClientHello, or one that is refused
	HandshakeDeniedName                      // a name that no rule could allow, or not the target's
	HandshakeNoProtocol                      // no application protocol or cipher in common
	HandshakeTimeout
	HandshakeClosed // the client went away
	HandshakeMint   // no leaf could be minted
	handshakeOutcomes
)

var handshakeWords = [handshakeOutcomes]string{
	"failed", "full", "resumed", "client_rejected_certificate", "bad_hello", "denied_name", "no_protocol", "timeout", "closed", "mint_failed",
}

var kinds = [...]string{"connect", "plain", "transparent", "other"}

// Stream is a kind of thing in progress inside a connection.
type Stream uint8

// The kinds.
const (
	Exchange Stream = iota // a request and its response
	WebSocket
	Passthrough
)

var streamWords = [...]string{"exchange", "websocket", "tunnel"}
