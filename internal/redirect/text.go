//go:build linux

package redirect

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// String is the table as text, in the words of nft(8) as far as it needs them.
func (r Rules) String() string {
	t := table()
	return render(t, r.chains(t))
}

func render(t *nftables.Table, chains []chain) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", t.Name)
	if t.Flags != 0 {
		fmt.Fprintf(&b, "\tflags %#x\n", t.Flags) // 1 is dormant: rules that are there and do nothing
	}
	for _, c := range chains {
		fmt.Fprintf(&b, "\tchain %s {\n\t\t%s\n", c.Name, hook(c.Chain))
		for _, exprs := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", text(exprs))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func hook(c *nftables.Chain) string {
	if c.Hooknum == nil || c.Priority == nil || c.Policy == nil {
		return "no hook"
	}
	at, policy := fmt.Sprintf("hook %d", *c.Hooknum), "accept"
	switch *c.Hooknum {
	case *nftables.ChainHookOutput:
		at = "hook output"
	case *nftables.ChainHookPrerouting:
		at = "hook prerouting"
	case *nftables.ChainHookForward:
		at = "hook forward"
	case *nftables.ChainHookPostrouting:
		at = "hook postrouting"
	}
	if *c.Policy == nftables.ChainPolicyDrop {
		policy = "drop"
	}
	return fmt.Sprintf("type %s %s priority %d; policy %s;", c.Type, at, *c.Priority, policy)
}

// text is one rule. It follows register 1, which is all that our rules use;
// what it does not know it spells out, so that no two rules look alike that
// are not.
func text(exprs []expr.Any) string {
	var words []string
	var held operand
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Ct:
			// As google/nftables reads it back, what sets a value has no register.
			if value := held.name; e.SourceRegister || e.Register == 0 {
				words = append(words, load(e).name+" set "+value)
			} else {
				held = load(e)
			}
		case *expr.Meta, *expr.Payload:
			held = load(e)
		case *expr.Bitwise:
			held.mask = e.Mask
			if strings.Trim(string(e.Xor), "\x00") != "" {
				held.name += " ^ " + hex.EncodeToString(e.Xor)
			}
		case *expr.Immediate:
			held = operand{name: hex.EncodeToString(e.Data)}
			switch len(e.Data) {
			case 2:
				held.name = strconv.Itoa(int(binary.BigEndian.Uint16(e.Data)))
			case 4:
				held.name = fmt.Sprintf("%#x", binaryutil.NativeEndian.Uint32(e.Data))
			}
		case *expr.Cmp:
			words = append(words, held.compare(e))
		case *expr.Redir:
			words = append(words, "redirect to :"+held.name)
		case *expr.Reject:
			words = append(words, fmt.Sprintf("reject type %d code %d", e.Type, e.Code))
		case *expr.Notrack:
			words = append(words, "notrack")
		case *expr.Verdict:
			words = append(words, verdictWord(e.Kind)+e.Chain)
		default:
			words = append(words, fmt.Sprintf("%T%+v", e, e))
		}
	}
	return strings.Join(words, " ")
}

// operand is what register 1 holds.
type operand struct {
	name string
	mask []byte // nil: all of it
	kind operandKind
}

type operandKind uint8

const (
	bytesOperand   operandKind = iota
	bigOperand                 // a number in the network's byte order
	familyOperand              // NFPROTO_…
	protoOperand               // IPPROTO_…
	addressOperand             // with a mask: a range
	stateOperand               // a set of conntrack states
	markOperand                // a number in the machine's byte order, read in base 16
	nameOperand                // an interface
)

func load(e expr.Any) operand {
	switch e := e.(type) {
	case *expr.Meta:
		switch e.Key {
		case expr.MetaKeyMARK:
			return operand{name: "meta mark", kind: markOperand}
		case expr.MetaKeyL4PROTO:
			return operand{name: "meta l4proto", kind: protoOperand}
		case expr.MetaKeyNFPROTO:
			return operand{name: "meta nfproto", kind: familyOperand}
		case expr.MetaKeyIIFNAME:
			return operand{name: "meta iifname", kind: nameOperand}
		case expr.MetaKeyOIFNAME:
			return operand{name: "meta oifname", kind: nameOperand}
		default: // spelled out below
		}
	case *expr.Ct:
		switch e.Key {
		case expr.CtKeySTATE:
			return operand{name: "ct state", kind: stateOperand}
		case expr.CtKeyDIRECTION:
			return operand{name: "ct direction", kind: bigOperand}
		case expr.CtKeyMARK:
			return operand{name: "ct mark", kind: markOperand}
		default: // spelled out below
		}
	case *expr.Payload:
		switch {
		case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
			return operand{name: "th dport", kind: bigOperand}
		case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 0 && e.Len == 2:
			return operand{name: "th sport", kind: bigOperand}
		case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 0 && e.Len == 1:
			return operand{name: "icmpv6 type", kind: bigOperand}
		case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 13 && e.Len == 1:
			return operand{name: "tcp flags", kind: bigOperand}
		case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 16 && e.Len == 4:
			return operand{name: "ip daddr", kind: addressOperand}
		case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 24 && e.Len == 16:
			return operand{name: "ip6 daddr", kind: addressOperand}
		}
	}
	return operand{name: fmt.Sprintf("%T%+v", e, e)}
}

func (o operand) compare(c *expr.Cmp) string {
	op := ""
	switch c.Op {
	case expr.CmpOpEq:
	case expr.CmpOpNeq:
		op = "!= "
	default:
		op = fmt.Sprintf("op %d ", c.Op)
	}
	if o.kind == stateOperand && c.Op == expr.CmpOpNeq {
		return o.name + " " + states(binaryutil.NativeEndian.Uint32(o.mask))
	}
	if o.kind == addressOperand {
		if addr, ok := netip.AddrFromSlice(c.Data); ok {
			if o.mask == nil {
				return o.name + " " + op + addr.String()
			}
			return fmt.Sprintf("%s %s%s/%d", o.name, op, addr, prefixLength(o.mask))
		}
	}
	if o.mask != nil {
		o.name += " & " + hex.EncodeToString(o.mask)
	}
	return o.name + " " + op + o.value(c.Data)
}

func (o operand) value(data []byte) string {
	switch {
	case o.kind == markOperand && len(data) == 4:
		return fmt.Sprintf("%#x", binaryutil.NativeEndian.Uint32(data))
	case o.kind == nameOperand:
		return strconv.Quote(strings.TrimRight(string(data), "\x00"))
	case o.kind == bigOperand && len(data) == 2:
		return strconv.Itoa(int(binary.BigEndian.Uint16(data)))
	case o.kind == bigOperand && len(data) == 1:
		return strconv.Itoa(int(data[0]))
	case o.kind == protoOperand && len(data) == 1:
		for number, name := range map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMPV6: "icmpv6"} {
			if data[0] == number {
				return name
			}
		}
	case o.kind == familyOperand && len(data) == 1:
		for number, name := range map[byte]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"} {
			if data[0] == number {
				return name
			}
		}
	}
	return "0x" + hex.EncodeToString(data)
}

// prefixLength counts the bits of a mask up to its first gap; what is behind a
// gap makes it -1, which no prefix has.
func prefixLength(m []byte) int {
	n, whole := 0, true
	for _, b := range m {
		lead := bits.LeadingZeros8(^b)
		if !whole && b != 0 || b<<lead != 0 {
			return -1
		}
		if whole {
			n += lead
		}
		whole = whole && lead == 8
	}
	return n
}

func states(set uint32) string {
	switch set {
	case expr.CtStateBitESTABLISHED:
		return "established"
	case expr.CtStateBitNEW:
		return "new"
	default:
		return fmt.Sprintf("%#x", set)
	}
}

func verdictWord(k expr.VerdictKind) string {
	switch k {
	case expr.VerdictAccept:
		return "accept"
	case expr.VerdictDrop:
		return "drop"
	case expr.VerdictReturn:
		return "return"
	default:
		return fmt.Sprintf("verdict %d ", k)
	}
}
