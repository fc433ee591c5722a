package canon

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// The limits of RFC 1035 section 2.3.4, in the text form without the root dot.
const (
	maxName  = 253
	maxLabel = 63
)

// Authority is where a request goes, in its only spelling.
type Authority struct {
	Host string     // lower-case name of A-labels without a trailing dot, or the text of Addr, without brackets
	Addr netip.Addr // valid if Host is an IP literal
	Port uint16     // never 0 in a parsed Authority
}

// String returns host:port, always with the port, IPv6 in brackets.
func (a Authority) String() string {
	return string(a.append(nil, 0))
}

// append writes host[:port], without the port if it is elide.
func (a Authority) append(dst []byte, elide uint16) []byte {
	if a.Addr.Is6() {
		dst = append(dst, '[')
		dst = append(dst, a.Host...)
		dst = append(dst, ']')
	} else {
		dst = append(dst, a.Host...)
	}
	if a.Port == elide {
		return dst
	}
	dst = append(dst, ':')
	return strconv.AppendUint(dst, uint64(a.Port), 10)
}

// ParseAuthority reads "host", "host:port" or "[v6]:port". A defaultPort of 0
// means that the port must be there, as in CONNECT. It does not allocate when
// raw is canonical.
func ParseAuthority(raw string, defaultPort uint16) (Authority, error) {
	a, e := parseAuthority(raw, defaultPort)
	if e != nil {
		return Authority{}, e
	}
	return a, nil
}

func parseAuthority(raw string, defaultPort uint16) (Authority, *Error) {
	var a Authority
	var e *Error
	if strings.IndexByte(raw, '@') >= 0 {
		return a, refuse(ReasonBadHost, 400, "userinfo in an authority") // not quoted: it is a credential
	}
	host, rest := raw, ""
	if strings.HasPrefix(raw, "[") {
		end := strings.IndexByte(raw, ']')
		if end < 0 {
			return a, refuse(ReasonBadHost, 400, "no closing bracket in %s", quoted(raw))
		}
		host, rest = raw[1:end], raw[end+1:]
		if a.Addr, e = parseIPv6(host); e != nil {
			return a, e
		}
		a.Host = host
	} else {
		if i := strings.IndexByte(raw, ':'); i >= 0 {
			host, rest = raw[:i], raw[i:]
		}
		if a.Host, a.Addr, e = parseHost(host); e != nil {
			return a, e
		}
	}
	switch {
	case rest != "":
		a.Port, e = parsePort(rest)
	case defaultPort != 0:
		a.Port = defaultPort
	default:
		e = refuse(ReasonBadPort, 400, "no port in %s", quoted(raw))
	}
	return a, e
}

// parsePort reads ":port".
func parsePort(s string) (uint16, *Error) {
	digits, ok := strings.CutPrefix(s, ":")
	if !ok || len(digits) == 0 || len(digits) > 5 || digits[0] == '0' {
		return 0, refuse(ReasonBadPort, 400, "not a port: %s", quoted(s))
	}
	n := 0
	for i := range len(digits) {
		c := digits[i]
		if c < '0' || c > '9' {
			return 0, refuse(ReasonBadPort, 400, "not a port: %s", quoted(s))
		}
		n = n*10 + int(c-'0')
	}
	if n > 65535 {
		return 0, refuse(ReasonBadPort, 400, "no such port: %s", quoted(s))
	}
	return uint16(n), nil
}

// ParseHost reads a host without a port: an SNI, a Host, the host of a rule. An
// IPv6 literal has no brackets here. The Addr is valid if the host is an IP
// literal. It does not allocate when raw is canonical.
func ParseHost(raw string) (string, netip.Addr, error) {
	var host string
	var addr netip.Addr
	var e *Error
	if strings.IndexByte(raw, ':') >= 0 {
		addr, e = parseIPv6(raw)
		host = raw
	} else {
		host, addr, e = parseHost(raw)
	}
	if e != nil {
		return "", netip.Addr{}, e
	}
	return host, addr, nil
}

// ParseUnicodeHost is ParseHost for hosts that people write in a file or on a
// command line: Unicode is mapped to A-labels as IDNA's lookup protocol does
// (UTS #46, non-transitional: case, width and composition are folded). Never
// give it a host from the wire.
func ParseUnicodeHost(raw string) (string, netip.Addr, error) {
	for i := range len(raw) {
		if raw[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(raw)
			if err != nil {
				return "", netip.Addr{}, refuse(ReasonBadHost, 400, "not a host name: %s: %v", quoted(raw), err)
			}
			return ParseHost(ascii)
		}
	}
	return ParseHost(raw)
}

// parseIPv6 accepts the one spelling of RFC 5952. A zone is local to a machine
// that is not the agent's, and a mapped address is IPv4 in disguise.
func parseIPv6(s string) (netip.Addr, *Error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is6() || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, refuse(ReasonBadHost, 400, "not an IPv6 address in canonical form: %s", quoted(s))
	}
	var buf [64]byte
	if string(addr.AppendTo(buf[:0])) != s {
		return netip.Addr{}, refuse(ReasonBadHost, 400, "IPv6 address %s must be written %s", quoted(s), addr)
	}
	return addr, nil
}

// parseHost reads a name or an IPv4 literal.
func parseHost(raw string) (string, netip.Addr, *Error) {
	name := strings.TrimSuffix(raw, ".")
	if len(name) == 0 || len(name) > maxName {
		return "", netip.Addr{}, refuse(ReasonBadHost, 400, "a host of %d bytes: %s", len(raw), quoted(raw))
	}
	upper, ace := false, false
	label := 0 // where the current label begins
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			if !validLabel(name[label:i]) {
				return "", netip.Addr{}, refuse(ReasonBadHost, 400, "label %s in host %s", quoted(name[label:i]), quoted(raw))
			}
			ace = ace || isACE(name[label:i])
			if i < len(name) {
				label = i + 1
			}
			continue
		}
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			upper = true
		default:
			return "", netip.Addr{}, refuse(ReasonBadHost, 400, "byte %#02x in host %s", c, quoted(raw))
		}
	}
	if isNumber(name[label:]) {
		addr, err := netip.ParseAddr(name)
		// netip refuses leading zeros and short forms; what it accepts is canonical.
		if err != nil || len(name) != len(raw) {
			return "", netip.Addr{}, refuse(ReasonBadHost, 400, "not an IPv4 address in canonical form: %s", quoted(raw))
		}
		return name, addr, nil
	}
	if upper {
		name = strings.ToLower(name) // ASCII, as checked above
	}
	if ace {
		if back, err := idna.Lookup.ToASCII(name); err != nil || back != name {
			return "", netip.Addr{}, refuse(ReasonBadHost, 400, "host %s has a label that is not IDNA2008", quoted(raw))
		}
	}
	return name, netip.Addr{}, nil
}

func validLabel(l string) bool {
	return len(l) > 0 && len(l) <= maxLabel && l[0] != '-' && l[len(l)-1] != '-'
}

func isACE(l string) bool {
	return len(l) >= 4 && l[2] == '-' && l[3] == '-' && l[0]|0x20 == 'x' && l[1]|0x20 == 'n'
}

// isNumber reports whether a last label makes the host an IPv4 address to
// somebody ("ends in a number", WHATWG URL section 3.5): decimal digits, or 0x
// with any hexadecimal digits, none included.
func isNumber(l string) bool {
	if len(l) >= 2 && l[0] == '0' && l[1]|0x20 == 'x' {
		for i := 2; i < len(l); i++ {
			if unhex(l[i]) < 0 {
				return false
			}
		}
		return true
	}
	for i := range len(l) {
		if l[i] < '0' || l[i] > '9' {
			return false
		}
	}
	return true
}

// agree reads a Host or :authority and holds it against the connection's
// agreed name (see the package comment). Where no name was agreed, which is so
// for plain HTTP that was redirected by the kernel, it is the name, and the
// port must be the connection's.
func (r *Request) agree(raw []byte, in *Inbound) *Error {
	a := &in.Authority
	def := in.Scheme.DefaultPort()
	if string(raw) == a.Host && a.Port == def && !a.Addr.Is6() && len(raw) > 0 {
		r.Authority = *a
		return nil
	}
	got, e := r.name(raw, def)
	if e != nil {
		return e
	}
	if a.Host == "" {
		if got.Port != a.Port {
			return refuse(ReasonNameMismatch, 421, "host %s is not on port %d, where the connection went", quoted(raw), a.Port)
		}
		r.Authority = got
		return nil
	}
	if got != *a {
		return refuse(ReasonNameMismatch, 421, "host %s is not the connection's %s", quoted(raw), a.String())
	}
	r.Authority = *a
	return nil
}

// name parses an authority and remembers the last one of the connection, since
// the next request nearly always has the same.
func (r *Request) name(raw []byte, def uint16) (Authority, *Error) {
	s := &r.store
	if s.named.Port != 0 && s.namedDef == def && bytes.Equal(s.namedRaw, raw) {
		return s.named, nil
	}
	a, e := parseAuthority(string(raw), def)
	if e != nil {
		return a, e
	}
	s.namedRaw = append(s.namedRaw[:0], raw...)
	s.named, s.namedDef = a, def
	return a, nil
}
