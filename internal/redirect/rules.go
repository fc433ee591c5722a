//go:build linux

package redirect

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the table, of family inet, that is ours.
const tableName = "aegrail"

// dnsPort is where DNS is asked (RFC 1035 section 4.2).
const dnsPort = 53

// Rules say where everything goes. The zero value is refused: without a port
// there is nothing to redirect to.
type Rules struct {
	Transparent uint16 // the engine's transparent port on 127.0.0.1 and ::1
	DNS         uint16 // the resolver's port there, UDP and TCP

	// Free are destinations besides loopback that are left alone: the
	// namespace's own addresses. What is in them is a way around the engine if
	// it leads anywhere else.
	Free []netip.Prefix

	// Mark is what a socket carries (SO_MARK) whose traffic is let out as it is:
	// the engine's, where it shares the namespace. 0: no socket is let out. The
	// kernel lets nobody set a mark but who has CAP_NET_ADMIN or CAP_NET_RAW over
	// the namespace, and who has one of those is not held by these rules. No user
	// is exempt, root and the engine's included. With a mark, answers to
	// connections that came in from outside pass too, and so does IPv6 neighbour
	// discovery: who can send to the namespace gets an answer of whoever listens
	// in it.
	Mark uint32

	// Protected are ports of the engine that nobody may reach in here, on no
	// free address: metrics, administration.
	Protected []uint16
}

// check refuses rules that would not hold what they promise.
func (r *Rules) check() error {
	switch {
	case r.Transparent == 0 || r.DNS == 0:
		return fmt.Errorf("redirect rules: the transparent port and the resolver's port are both needed")
	case slices.Contains(r.Protected, r.Transparent) || slices.Contains(r.Protected, r.DNS):
		return fmt.Errorf("redirect rules: what is redirected ends at the ports %d and %d; they cannot be protected, the engine refuses who dials them by hand", r.Transparent, r.DNS)
	case slices.Contains(r.Protected, 0):
		return fmt.Errorf("redirect rules: 0 is no port to protect")
	}
	for _, p := range r.Free {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr() != p.Masked().Addr() || p.Bits() == 0 {
			return fmt.Errorf("redirect rules: %q is no range to leave alone; write it like 10.1.2.3/32 or fd00::1/128", p)
		}
	}
	return nil
}

// free are all destinations that are left alone.
func (r *Rules) free() []netip.Prefix {
	return append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, r.Free...)
}

// chain is a chain and what is in it.
type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

// chains is the table's content.
func (r *Rules) chains(t *nftables.Table) []chain {
	accept, drop := nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	all := []chain{
		{&nftables.Chain{
			Name: "divert", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest, Policy: &accept,
		}, r.divert()},
		{&nftables.Chain{
			Name: "confine", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		}, r.confine()},
		{&nftables.Chain{
			Name: "leave", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter, Policy: &accept,
		}, leave()},
		// What arrives for another machine, and what a packet's own routing header
		// sends on from here: nothing.
		{&nftables.Chain{
			Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		}, nil},
	}
	if r.Mark == 0 {
		return all
	}
	ask, hear := r.untracked()
	return append([]chain{{&nftables.Chain{
		Name: "ask", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw, Policy: &accept,
	}, ask}, {&nftables.Chain{
		Name: "hear", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw, Policy: &accept,
	}, hear}, {&nftables.Chain{
		Name: "arrive", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle, Policy: &accept,
	}, [][]expr.Any{rule(notLoopback(expr.MetaKeyIIFNAME), state(expr.CtStateBitNEW), setConnectionMark(arrived))}}}, all...)
}

// arrived marks a connection, and not its packets as Rules.Mark does, whose
// first packet came in by an interface. That a
// packet answers another is not enough to let it out: whoever binds a socket to
// an address that is not this machine's (IPV6_FREEBIND) sends from there to
// itself, and its answer would leave for that address.
const arrived = 0xae6

// untracked keeps conntrack away from what the engine asks the cluster's
// resolver over UDP, and from the answers. A flow is known by its addresses and
// ports for half a minute after its last packet. An agent asks the same server,
// and of two that ask often one soon has a port that the other had before: its
// question would go where the other's went, the engine's to the engine's own
// resolver, whose addresses mean nothing.
func (r *Rules) untracked() (ask, hear [][]expr.Any) {
	untrack := []expr.Any{&expr.Notrack{}}
	return [][]expr.Any{rule(marked(r.Mark), to(unix.IPPROTO_UDP, dnsPort), untrack)},
		[][]expr.Any{rule(notLoopback(expr.MetaKeyIIFNAME), from(unix.IPPROTO_UDP, dnsPort), untrack)}
}

// leave sees where each packet goes at last. A socket that is bound to an
// interface (SO_BINDTODEVICE) sends there what is for loopback, and what divert
// has led there: to the next machine, which may take it for its own.
func leave() (rules [][]expr.Any) {
	for _, p := range (&Rules{}).free() {
		rules = append(rules, rule(notLoopback(expr.MetaKeyOIFNAME), destination(p), verdict(expr.VerdictDrop)))
	}
	return rules
}

// divert sees the first packet of each connection, before confine does.
func (r *Rules) divert() (rules [][]expr.Any) {
	if r.Mark != 0 {
		rules = append(rules, rule(marked(r.Mark), verdict(expr.VerdictReturn)))
	}
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rules = append(rules, rule(to(protocol, dnsPort), redirectTo(r.DNS)))
	}
	for _, p := range r.free() {
		rules = append(rules, rule(destination(p), verdict(expr.VerdictReturn)))
	}
	return append(rules, rule(protocol(unix.IPPROTO_TCP), redirectTo(r.Transparent)))
}

// confine sees every packet, with the destination that divert gave it. What no
// rule names is dropped by the chain's policy.
func (r *Rules) confine() (rules [][]expr.Any) {
	if r.Mark != 0 {
		// A socket may be bound to the address of the cluster's resolver
		// (IPV6_FREEBIND) and answer the engine from there. Nobody in here is asked at
		// that port, as questions are redirected, so nobody answers from it.
		rules = append(rules, rule(loopback(expr.MetaKeyOIFNAME), from(unix.IPPROTO_UDP, dnsPort), verdict(expr.VerdictDrop)))

		// Packets that the kernel sends after a socket is gone have no mark. A TCP
		// connection is established only if its first packet passed. For UDP that
		// would be a hole: whoever takes the port of a socket that the engine has
		// closed would send along its flow. For TCP so would a SYN: conntrack lets
		// one pass in a flow that it has not seen the end of, for the server to say
		// whether it begins anew.
		//
		// The engine's own listeners have no mark either. What they answer stays in
		// here, whatever address of the namespace an agent dials from.
		rules = append(rules,
			rule(connectionMark(arrived), reply(), verdict(expr.VerdictAccept)),
			rule(loopback(expr.MetaKeyOIFNAME), reply(), verdict(expr.VerdictAccept)),
			rule(protocol(unix.IPPROTO_TCP), noSYN(), state(expr.CtStateBitESTABLISHED), verdict(expr.VerdictAccept)))
		for _, icmp := range []byte{133, 135, 136, 143} { // router and neighbour solicitation, advertisement, MLD (RFC 4861, 3810)
			rules = append(rules, rule(protocol(unix.IPPROTO_ICMPV6), icmpType(icmp), verdict(expr.VerdictAccept)))
		}
		rules = append(rules, rule(marked(r.Mark), verdict(expr.VerdictAccept)))
	}
	for _, port := range r.Protected {
		rules = append(rules,
			rule(to(unix.IPPROTO_TCP, port), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
			rule(to(unix.IPPROTO_UDP, port), verdict(expr.VerdictDrop)))
	}
	for _, p := range r.free() {
		rules = append(rules, rule(destination(p), verdict(expr.VerdictAccept)))
	}
	return rules
}

// What follows makes rules of expressions. All of them use register 1.

func rule(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func equals(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

// marked is what a socket with this mark sends.
func marked(n uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, equals(binaryutil.NativeEndian.PutUint32(n)...)}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals(number)}
}

func to(number byte, port uint16) []expr.Any {
	return append(protocol(number),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equals(binaryutil.BigEndian.PutUint16(port)...))
}

func from(number byte, port uint16) []expr.Any {
	return append(protocol(number),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		equals(binaryutil.BigEndian.PutUint16(port)...))
}

func icmpType(number byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 1}, equals(number)}
}

// reply is what answers a connection that somebody else began.
func reply() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equals(1)} // IP_CT_DIR_REPLY
}

// noSYN is every TCP segment but those that begin a connection.
func noSYN() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{2}, Xor: []byte{0}},
		equals(0),
	}
}

// state is one of a set of conntrack states.
func state(set uint32) []expr.Any {
	none := make([]byte, 4)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(set), Xor: none},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: none},
	}
}

func connectionMark(n uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, equals(binaryutil.NativeEndian.PutUint32(n)...)}
}

func setConnectionMark(n uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(n)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}
}

// loopback is lo, by the name of key, and notLoopback every other interface.
func loopback(key expr.MetaKey) []expr.Any { return interfaceIs(key, expr.CmpOpEq) }

func notLoopback(key expr.MetaKey) []expr.Any { return interfaceIs(key, expr.CmpOpNeq) }

func interfaceIs(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

func destination(p netip.Prefix) []expr.Any {
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if p.Addr().Is6() {
		family, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	out := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equals(family),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	}
	if !p.IsSingleIP() {
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask(p.Bits(), int(length)), Xor: make([]byte, length)})
	}
	return append(out, equals(p.Addr().AsSlice()...))
}

// mask is the first bits of length bytes.
func mask(bits, length int) []byte {
	m := make([]byte, length)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// redirectTo sends a connection to port of this machine's loopback address.
func redirectTo(port uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)}, &expr.Redir{RegisterProtoMin: 1}}
}
