// Package doctor tries the ways around the engine from where an agent is, and
// says for each whether it is held. It runs in the agent's own container (or an
// ephemeral one beside it), or as exec's command.
//
// The checks are the rows of "escape from an injected pod" and what a program
// needs to find the engine:
//
//	E1  TCP to an address, IPv4 and IPv6, on any port
//	E2  UDP (QUIC), ICMP, DNS at another server, DNS for a name outside the policy
//	E3  privileges, becoming the engine's user, the rules, raw sockets, the mark that is let out, the engine's process
//	E4  the engine's ports: administration, redirected connections by hand, forward proxy, DNS by hand
//	E5  tokens, keys, log and policy
//	P1  the trust bundle in the environment
//	P2  the proxy variables
//
// A check is held only where there is evidence. For a connection that is the
// engine's end of it, which /proc/net/tcp shows since the namespace is shared,
// or the engine's own answer; for a message, that the kernel refused to send
// it. An answer that could be anybody's, and none at all, are not held: a
// network that happens to drop 192.0.2.1 may let the next address pass.
//
// It sends to addresses of documentation (192.0.2.0/24, 2001:db8::/32, RFC 5737
// and 3849), to the engine's ports on this pod's own addresses and to the
// resolver that is configured, and to nobody else. Where an engine judges, each
// try leaves a refusal in its log, for names below aegrail.invalid.
package doctor
