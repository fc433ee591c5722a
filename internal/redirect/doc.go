// Package redirect is the kernel's half of transparent mode: the nftables rules
// that leave what runs in a network namespace no way out but the engine.
//
//	TCP              to any address, IPv4 and IPv6: to the engine's transparent port
//	DNS              UDP and TCP to port 53 of any address, loopback included: to
//	                 the resolver's port
//	loopback         free, but for the ports in Rules.Protected
//	everything else  dropped: other UDP (QUIC), ICMP, SCTP, what has no name here,
//	                 and what would go on from here to another machine
//
// What is for loopback leaves by no other interface, and what only looks like
// an answer to somebody outside is none: only a connection whose first packet
// came in by an interface is answered.
//
// exec applies it to a namespace of its own, where it holds for everything.
// In a pod it holds for every socket but those that carry the engine's mark
// (Rules.Mark), whichever user's they are; package passage is how they get it.
//
// The rules are one table, "inet aegrail", written and read by netlink: no nft
// binary is needed, and CAP_NET_ADMIN only over the namespace itself. Apply
// replaces the table as a whole, in one transaction, so that there is no moment
// without rules and to apply twice is to apply once. Check reads the table
// back and says what differs; List is the table as text.
//
// A redirected connection keeps the destination that was dialled, which the
// engine reads with SO_ORIGINAL_DST and of which it uses the port alone.
//
// What is dropped fails at once where the kernel can say so (a send is EPERM);
// nothing here sends packets of its own but the reset for a protected port.
//
// Needed of the kernel: nf_tables with the inet family's NAT (Linux 5.2), the
// redirect and, for Mark and Protected, ct (with marks), notrack and reject expressions. They are
// modules of every distribution's kernel and load when they are used.
package redirect
