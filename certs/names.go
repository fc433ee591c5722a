package certs

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Limits of a DNS name in text form without the trailing dot (RFC 1035, 2.3.4).
const (
	maxHost  = 253
	maxLabel = 63
)

// parseHost returns the address if host is one in canonical text, else the zero Addr if host is a canonical DNS name: lower
// case letters, digits, hyphen and underscore, labels of 1 to 63 bytes, at most 253 in all, no trailing dot, no wildcard,
// and a last label that is not a number (1.2.3 and 0x7f.1 are addresses to some resolvers).
func parseHost(host string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case addr.Zone() != "":
			return netip.Addr{}, hostError(host, "an address with a zone")
		case addr.Is4In6():
			return netip.Addr{}, hostError(host, "an IPv4-mapped IPv6 address; write the IPv4 address")
		case addr.String() != host:
			return netip.Addr{}, hostError(host, "an address in another spelling than "+addr.String())
		}
		return addr, nil
	}
	if host == "" || len(host) > maxHost {
		return netip.Addr{}, hostError(host, fmt.Sprintf("%d bytes long; 1 to %d are allowed", len(host), maxHost))
	}
	rest, last := host, ""
	for more := true; more; {
		last, rest, more = strings.Cut(rest, ".")
		if why := checkLabel(last); why != "" {
			return netip.Addr{}, hostError(host, why)
		}
	}
	if last[0] >= '0' && last[0] <= '9' && (strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")) {
		return netip.Addr{}, hostError(host, "an address that is not in canonical form (the last label is a number)")
	}
	return netip.Addr{}, nil
}

func checkLabel(label string) string {
	if label == "" {
		return "a name with an empty label or a trailing dot"
	}
	if len(label) > maxLabel {
		return fmt.Sprintf("a name with a label of %d bytes; the limit is %d", len(label), maxLabel)
	}
	if label[0] == '-' {
		return "a name with a label that begins with a hyphen" // crypto/x509 matches no such name
	}
	for i := range len(label) {
		switch c := label[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fmt.Sprintf("a name with %q in it", c)
		}
	}
	return ""
}

// hostError quotes and caps the name: it is an agent's bytes on the way to a log.
func hostError(host, why string) error {
	const most = 80
	if len(host) > most {
		host = host[:most] + "…"
	}
	return fmt.Errorf("%w: %q is %s", ErrHost, host, why)
}

// Permits reports whether the name constraints of the CA and of what is above it let a leaf for host verify. A name that
// is not canonical is not permitted.
func (a *Authority) Permits(host string) bool {
	addr, err := parseHost(host)
	return err == nil && a.permits(host, addr)
}

// permits follows RFC 5280, 4.2.1.10: each certificate on the path must permit the name, an exclusion wins, and a form of
// name for which a certificate lists nothing is free. addr is valid if host is an address.
func (a *Authority) permits(host string, addr netip.Addr) bool {
	for _, c := range a.path {
		if addr.IsValid() {
			in := func(n *net.IPNet) bool { return contains(n, addr) }
			if slices.ContainsFunc(c.ExcludedIPRanges, in) ||
				len(c.PermittedIPRanges) > 0 && !slices.ContainsFunc(c.PermittedIPRanges, in) {
				return false
			}
			continue
		}
		under := func(domain string) bool { return isUnder(host, domain) }
		if slices.ContainsFunc(c.ExcludedDNSDomains, under) ||
			len(c.PermittedDNSDomains) > 0 && !slices.ContainsFunc(c.PermittedDNSDomains, under) {
			return false
		}
	}
	return len(a.path) > 0
}

// contains is IPNet.Contains without its leniency: an IPv4 address is in no IPv6 range.
func contains(n *net.IPNet, addr netip.Addr) bool {
	return len(n.Mask) == addr.BitLen()/8 && n.Contains(addr.AsSlice())
}

// isUnder: "x" stands for x and everything below, ".x" for what is below alone, "" for every name.
func isUnder(host, domain string) bool {
	domain = strings.ToLower(domain)
	if domain == "" || host == domain {
		return true
	}
	if domain[0] != '.' {
		domain = "." + domain
	}
	return len(host) > len(domain) && strings.HasSuffix(host, domain)
}

// permittedName finds a name that the CA may sign, for the rehearsal.
func (a *Authority) permittedName() (string, bool) {
	candidates := []string{"rehearsal.invalid", "192.0.2.1", "2001:db8::1"}
	for _, c := range a.path {
		for _, d := range c.PermittedDNSDomains {
			d = strings.ToLower(strings.TrimPrefix(d, "."))
			candidates = append(candidates, d, "rehearsal."+d)
		}
		for _, n := range c.PermittedIPRanges {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				candidates = append(candidates, addr.String())
			}
		}
	}
	i := slices.IndexFunc(candidates, a.Permits)
	if i < 0 {
		return "", false
	}
	return candidates[i], true
}

// constrain sets the name constraints that confine a CA to permit: hosts (with a `*` label standing for any label) and
// CIDR ranges or addresses. X.509 has coarser words than a policy, and always the wider one is taken:
//
//	api.example.com      api.example.com and every name below it
//	*.example.com        example.com and every name below it
//	a.*.example.com      the same: the literal suffix
//	10.0.0.0/8           exactly that range
//
// A form of name that permit does not mention is excluded altogether: a constraint that lists no address leaves all
// addresses free (RFC 5280, 4.2.1.10).
func constrain(tmpl *x509.Certificate, permit []string) error {
	for _, entry := range permit {
		ipNet, domain, err := parsePermit(entry)
		if err != nil {
			return fmt.Errorf("permitted name %q: %w", entry, err)
		}
		if ipNet != nil {
			tmpl.PermittedIPRanges = append(tmpl.PermittedIPRanges, ipNet)
		} else if !slices.Contains(tmpl.PermittedDNSDomains, domain) {
			tmpl.PermittedDNSDomains = append(tmpl.PermittedDNSDomains, domain)
		}
	}
	if len(tmpl.PermittedIPRanges) == 0 {
		tmpl.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		}
	}
	if len(tmpl.PermittedDNSDomains) == 0 {
		tmpl.ExcludedDNSDomains = []string{""} // every name is under the empty one
	}
	tmpl.PermittedDNSDomainsCritical = true
	return nil
}

// parsePermit returns a range or a domain.
func parsePermit(entry string) (*net.IPNet, string, error) {
	if strings.Contains(entry, "/") {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			return nil, "", fmt.Errorf("%w, and not a CIDR range: want a host alone, *.suffix or a range like 10.0.0.0/8, without scheme, port and path", ErrHost)
		}
		if prefix != prefix.Masked() || prefix.Addr().Is4In6() {
			return nil, "", fmt.Errorf("%w: bits are set beyond the prefix, or it is IPv4 in IPv6; write %s", ErrHost, prefix.Masked())
		}
		return ipNet(prefix), "", nil
	}
	labels := strings.Split(entry, ".")
	for i := len(labels) - 1; i >= 0; i-- {
		if labels[i] == "*" {
			if labels = labels[i+1:]; len(labels) == 0 {
				return nil, "", fmt.Errorf("%w: a wildcard with nothing behind it is every host, for which X.509 has no constraint; name the domains, or leave --permit out for a CA without constraints", ErrHost)
			}
			break
		}
	}
	domain := strings.Join(labels, ".")
	addr, err := parseHost(domain)
	switch {
	case err != nil:
		return nil, "", err
	case addr.IsValid() && domain != entry:
		return nil, "", hostError(entry, "a wildcard before an address; write a CIDR range")
	case addr.IsValid():
		return ipNet(netip.PrefixFrom(addr, addr.BitLen())), "", nil
	}
	return nil, domain, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
