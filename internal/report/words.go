package report

import (
	"net/netip"
	"strings"
)

// group is what kind of trouble a reason names.
type group uint8

const (
	groupOther group = iota
	groupPolicy
	groupLimit
	groupForm     // a request that has more than one reading, or none
	groupName     // names that do not agree
	groupIdentity // who is calling
	groupConnection
	groupAddress
	groupUpstream
	groupClient
	groupEngine
)

// String is how a table names the group.
func (g group) String() string {
	switch g {
	case groupPolicy:
		return "policy"
	case groupLimit:
		return "limit"
	case groupForm:
		return "form"
	case groupName:
		return "names"
	case groupIdentity:
		return "identity"
	case groupConnection:
		return "connection"
	case groupAddress:
		return "address"
	case groupUpstream:
		return "upstream"
	case groupClient:
		return "client"
	case groupEngine:
		return "engine"
	default:
		return "other"
	}
}

// meaning is a reason in words.
type meaning struct {
	group group
	text  string
}

// glossary explains the engine's reasons. A reason that is not in it comes
// from another writer, or from a later engine.
type glossary map[string]meaning

func newGlossary() glossary {
	g := glossary{}
	for group, words := range map[group]map[string]string{
		groupPolicy: policyWords(), groupLimit: limitWords(), groupForm: formWords(), groupName: nameWords(),
		groupIdentity: identityWords(), groupConnection: connectionWords(), groupAddress: {"address_denied": "the name resolved to an address inside"},
		groupUpstream: upstreamWords(), groupClient: clientWords(), groupEngine: engineWords(),
	} {
		for word, text := range words {
			g[word] = meaning{group, text}
		}
	}
	return g
}

func policyWords() map[string]string {
	return map[string]string{
		"not_in_allowlist":      "no rule names the host",
		"method_not_allowed":    "a rule names host and path, not the method",
		"path_not_allowed":      "a rule names the host, not the path",
		"port_not_allowed":      "a rule names the host, not the port",
		"scheme_not_allowed":    "a rule names the host, not the scheme",
		"condition_not_met":     "a rule's condition on query, headers or body does not hold",
		"denied_by_rule":        "a deny rule matches",
		"websocket_not_allowed": "no rule allows a WebSocket here",
		"tunnel_not_allowed":    "no rule allows an unread tunnel to the host",
		"upgrade_not_allowed":   "a switch to a protocol other than WebSocket",
		"method_override":       "a header asks for another method than the request line",
		"bad_body":              "a body that a rule has to read cannot be read in one way",
		"policy_changed":        "the rule that allowed it is gone: cut",
	}
}

func limitWords() map[string]string {
	return map[string]string{
		"request_count_exceeded": "the rule's number of requests is used up",
		"rate_limited":           "faster than the rule's rate",
		"token_budget_exceeded":  "the budget of tokens is used up",
		"refusal_budget":         "refused too often: everything is refused for a while",
		"too_many_bodies":        "too many bodies are held at once",
		"too_many_heads":         "too many large request heads are held at once",
		"too_many_connections":   "too many connections of one agent",
		"too_many_exchanges":     "too many requests of one agent at once",
		"h2_flood":               "more HTTP/2 resets, pings and the like than an agent may send",
		"body_too_large":         "a body beyond the rule's requestBytes",
		"head_too_large":         "a request head beyond the limit",
		"too_many_fields":        "more header fields than the limit",
	}
}

func formWords() map[string]string {
	return map[string]string{
		"bad_framing": "the length of the body can be read in two ways", "bad_header": "a header field that is malformed, repeated or misplaced",
		"bad_request_line": "not an HTTP request line", "bad_chunk": "a malformed chunk", "bad_trailer": "a trailer that may not be one",
		"bad_expect": "an expectation other than 100-continue", "bad_method": "a method that is no token, or TRACE",
		"nested_connect": "CONNECT inside a tunnel", "bad_upgrade": "a malformed upgrade", "bad_path": "characters that a path must not have",
		"ambiguous_path": "a path that servers read differently", "bad_query": "characters that a query must not have",
		"bad_target": "a request target of the wrong form", "bad_port": "a port that is none", "bad_scheme": "a scheme unlike the connection's",
		"bad_host": "a host that is no name and no address", "bad_frame": "a malformed WebSocket frame", "bad_client_hello": "a malformed or refused ClientHello",
		"h2_protocol_error": "frames that HTTP/2 does not allow", "h2_bad_request": "a request that HTTP/2 does not allow",
	}
}

func nameWords() map[string]string {
	return map[string]string{
		"dns_name_denied":    "a redirected program asked for the address of a name that no rule could allow",
		"dns_type_denied":    "a redirected program asked DNS for something other than an address",
		"dns_bad_query":      "what came to the DNS port is no question that is answered",
		"name_mismatch":      "CONNECT target, SNI and Host are not one name",
		"no_sni":             "a ClientHello without a server name",
		"ech_in_passthrough": "an encrypted server name where only the name is judged",
	}
}

func identityWords() map[string]string {
	return map[string]string{
		"unknown_principal":    "nobody vouches for the caller",
		"principal_changed":    "the connection's owner is another by now",
		"identity_unavailable": "who vouches for callers could not be asked",
		"no_policy_for_agent":  "the agent is known and no policy selects it",
		"not_redirected":       "a connection that the redirect did not bring",
	}
}

func connectionWords() map[string]string {
	return map[string]string{
		"no_application_protocol": "no protocol or cipher in common with the client", "tls_version": "the client's TLS version is refused",
		"not_tls": "the tunnel carries no TLS", "client_rejected_certificate": "the client does not trust the engine's CA",
		"client_alert": "the client ended the handshake", "handshake_aborted": "the client went away during the handshake",
		"handshake_timeout": "the handshake took too long", "leaf_not_minted": "no certificate could be made for the name",
		"head_timeout": "the request head came too slowly",
	}
}

func upstreamWords() map[string]string {
	return map[string]string{
		"resolve_failed": "the name did not resolve", "dial_failed": "no connection to the server", "bad_response": "the server's answer is malformed",
		"upstream_tls": "TLS with the server failed", "upstream_tls_version": "the server's TLS version is refused",
		"upstream_cert_expired": "the server's certificate has expired", "upstream_cert_not_yet_valid": "the server's certificate is not valid yet",
		"upstream_cert_name": "the server's certificate is for another name", "upstream_cert_no_san": "the server's certificate names nothing",
		"upstream_cert_unknown_root": "the server's certificate has an unknown root", "upstream_cert_self_signed": "the server's certificate is self-signed",
		"upstream_cert_incomplete": "the server's chain is incomplete", "upstream_cert_weak_signature": "a weak signature in the server's chain",
		"upstream_cert_weak_key": "a weak key in the server's chain", "upstream_cert_usage": "the server's certificate is not for servers",
		"upstream_cert_too_large": "the server's chain is too large", "upstream_cert_pin": "no pinned key in the server's chain",
		"upstream_cert_invalid": "the server's certificate is invalid", "upstream_client_cert_wanted": "the server wants a client certificate",
		"upstream_client_closed": "the engine was stopping", "upstream_closed": "the server closed the connection",
		"upstream_reset": "the server reset the stream", "upstream_refused": "the server refused the stream",
		"upstream_truncated": "the answer ended before its end", "upstream_timeout": "the server took too long",
		"upstream_unsendable": "the request has no faithful form for the server", "upstream_not_permitted": "sent without a permit: a defect",
		"upstream_proxy_failed": "the upstream proxy failed", "upstream_proxy_refused": "the upstream proxy refused",
	}
}

func clientWords() map[string]string {
	return map[string]string{
		"client_aborted": "the client went away", "client_stalled": "the client stopped reading", "body_timeout": "the request's body came too slowly",
		"request_aborted": "the request's body broke off", "canceled": "the request was given up", "websocket_idle": "the WebSocket was idle too long",
		"tunnel_idle": "the tunnel was idle too long",
	}
}

func engineWords() map[string]string {
	return map[string]string{
		"audit_unavailable": "the log took no record, so nothing was forwarded", "audit_recovered": "the log takes records again",
		"shutdown": "the engine was stopping", "internal": "a defect of the engine", "none": "", "other": "reasons that were not told apart",
	}
}

// of returns the group of a reason.
func (g glossary) of(reason string) group { return g[reason].group }

// insideHost reports a host that an agent outside has no business with: the
// machine, the network around it, the metadata service of a cloud. It is for
// finding attempts; what refuses addresses is the engine's guard.
func insideHost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		return insideAddr(a)
	}
	switch host {
	case "localhost", "metadata", "instance-data", "metadata.google.internal", "instance-data.ec2.internal", "metadata.azure.internal",
		"metadata.tencentyun.com", "metadata.packet.net", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local":
		return true
	}
	return strings.HasSuffix(host, ".localhost")
}

// insideAddr reports an address that is not on the Internet, or a metadata
// service on one that is (Azure, Oracle).
func insideAddr(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
		return true
	}
	for _, p := range []string{"100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

// insideUpstream reports that the address a request went to is inside.
func insideUpstream(addrPort string) bool {
	ap, err := netip.ParseAddrPort(addrPort)
	return err == nil && insideAddr(ap.Addr())
}
