// Package intake is where an agent's connection comes in. It says what arrived
// (a Flow) and judges nothing.
//
// There are three ways in:
//
//	CONNECT       the forward-proxy port; the target is the authority-form of
//	              the CONNECT line (RFC 9110 section 9.3.6)
//	plain         the forward-proxy port; absolute-form requests for http URLs
//	transparent   a connection that the kernel redirected; SO_ORIGINAL_DST
//	              gives the address that the agent dialled, of which the engine
//	              uses the port alone
//
// What a Flow holds is the agent's own words. Package canon makes names of
// them; until then nothing may be compared, logged raw or dialled.
//
// A ClientHello is read by crypto/tls itself, on a connection that cannot be
// written to, so that there is no second TLS parser to disagree with the one
// that will serve the handshake.
package intake
