package upstream

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// The address guard. The rules are:
//
//   - An address is judged twice by the same function: when the name was
//     resolved, and by the socket that is about to connect (row D1). What
//     differs between the two was swapped in between.
//   - Mapped IPv6 (::ffff:a.b.c.d) is judged as the IPv4 address that it is.
//   - One denied address refuses the whole answer (row D2): a name that
//     points outside and inside at once is not half right.
//   - What a rule names (policy.Egress.Addresses) passes. The engine's own
//     listeners pass only if a rule names that very address (row A18), since
//     a wide range rarely means them.
//   - Not understood means denied: an invalid address, a zone, and every IPv6
//     address outside 2000::/3, which is all that is assigned.

// deniedRanges are those of row D1 and the rest of the IANA special-purpose
// registries (RFC 6890).
func deniedRanges() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10" /* shared; Alibaba metadata */, "127.0.0.0/8",
		"168.63.129.16/32" /* Azure's WireServer, metadata on a public address */, "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24" /* Oracle metadata */, "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23" /* Teredo, ORCHID, benchmarking */, "2001:db8::/32", "2002::/16" /* 6to4 */, "3fff::/20",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// guard judges addresses. Immutable.
type guard struct {
	denied []netip.Prefix
	own    []netip.AddrPort
	local  map[netip.Addr]bool // the machine's addresses, for listeners on the unspecified one
	global netip.Prefix        // 2000::/3
}

func newGuard(more []netip.Prefix, own []netip.AddrPort) (*guard, error) {
	g := &guard{denied: append(deniedRanges(), more...), global: netip.MustParsePrefix("2000::/3"), local: map[netip.Addr]bool{}}
	for _, p := range more {
		if !p.IsValid() {
			return nil, fmt.Errorf("upstream: a CIDR to deny is not valid: write it as 10.96.0.0/12")
		}
	}
	for _, ap := range own {
		g.own = append(g.own, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("upstream: listing this machine's addresses, which the address guard needs: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				g.local[ip.Unmap()] = true
			}
		}
	}
	return g, nil
}

// judge returns nil where ap may be dialled for a rule that names allowed.
func (g *guard) judge(ap netip.AddrPort, allowed []netip.Prefix) error {
	addr := ap.Addr().Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return g.refuse(ap, "not an address that can be judged")
	}
	named, exactly := false, false
	for _, p := range allowed {
		if p.Contains(addr) {
			named = true
			exactly = exactly || p.IsSingleIP()
		}
	}
	if g.isOwn(addr, ap.Port()) && !exactly {
		return g.refuse(ap, "one of the engine's own listeners")
	}
	if named {
		return nil
	}
	if addr.Is6() && !g.global.Contains(addr) {
		return g.refuse(ap, "not a global address")
	}
	for _, p := range g.denied {
		if p.Contains(addr) {
			return g.refuse(ap, "in "+p.String())
		}
	}
	return nil
}

func (g *guard) isOwn(addr netip.Addr, port uint16) bool {
	for _, o := range g.own {
		if o.Port() != port {
			continue
		}
		if o.Addr() == addr || o.Addr().IsUnspecified() && (addr.IsLoopback() || addr.IsUnspecified() || g.local[addr]) {
			return true
		}
	}
	return false
}

func (g *guard) refuse(ap netip.AddrPort, why string) *Error {
	return fail(ReasonAddressDenied, http.StatusForbidden,
		ap.String()+" is "+why+"; a rule's addresses must name it", nil)
}
