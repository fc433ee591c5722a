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
// for what is missing here, which a test keeps empty.
var reasonWords = [...]string{
	"none", "other",
	// framing and heads
	"bad_framing", "bad_header", "bad_request_line", "head_too_large", "too_many_fields", "bad_chunk", "bad_trailer",
	"bad_expect", "bad_response", "head_timeout", "bad_method", "nested_connect", "bad_upgrade", "h2_protocol_error", "h2_bad_request",
	// names, paths, queries
	"bad_host", "bad_path", "ambiguous_path", "bad_query", "bad_target", "bad_port", "bad_scheme", "name_mismatch", "method_override",
	// connections
	"bad_client_hello", "no_sni", "ech_in_passthrough", "no_application_protocol", "tls_version", "not_tls", "not_redirected",
	"dns_name_denied", "dns_type_denied", "dns_bad_query",
	"unknown_principal", "principal_changed", "identity_unavailable", "too_many_connections", "client_rejected_certificate", "client_alert", "handshake_aborted",
	"handshake_timeout", "leaf_not_minted",
	// policy
	"not_in_allowlist", "method_not_allowed", "path_not_allowed", "condition_not_met", "denied_by_rule", "no_policy_for_agent",
	"port_not_allowed", "scheme_not_allowed", "bad_body", "body_too_large", "websocket_not_allowed", "tunnel_not_allowed",
	"upgrade_not_allowed", "policy_changed",
	// limits
	"request_count_exceeded", "rate_limited", "refusal_budget", "too_many_bodies", "too_many_heads", "too_many_exchanges", "h2_flood",
	// upstream
	"resolve_failed", "address_denied", "dial_failed", "canceled", "request_aborted",
	"upstream_tls", "upstream_tls_version", "upstream_cert_expired", "upstream_cert_not_yet_valid", "upstream_cert_name",
	"upstream_cert_no_san", "upstream_cert_unknown_root", "upstream_cert_self_signed", "upstream_cert_incomplete",
	"upstream_cert_weak_signature", "upstream_cert_weak_key", "upstream_cert_usage", "upstream_cert_too_large", "upstream_cert_pin",
	"upstream_cert_invalid", "upstream_client_cert_wanted", "upstream_client_closed", "upstream_closed", "upstream_reset",
	"upstream_refused", "upstream_truncated", "upstream_timeout", "upstream_unsendable", "upstream_not_permitted",
	"upstream_proxy_failed", "upstream_proxy_refused",
	// bodies and streams
	"client_aborted", "client_stalled", "body_timeout", "bad_frame", "websocket_idle", "tunnel_idle", "shutdown",
	// the engine
	"audit_unavailable", "internal",
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

var shipKinds = [...]string{"file", "http", "otlp", "webhook", "other"}
