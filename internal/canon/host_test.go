package canon

import (
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

func TestA04OneSpellingOfAName(t *testing.T) {
	long := strings.Repeat("a", 63)
	max := long + "." + long + "." + long + "." + long[:61] // 253
	for raw, want := range map[string]string{
		"example.com":           "example.com",
		"EXAMPLE.com":           "example.com",
		"example.com.":          "example.com",
		"XN--BCHER-KVA.example": "xn--bcher-kva.example",
		"a_b._tcp.example":      "a_b._tcp.example",
		"r3---sn-apo3q.example": "r3---sn-apo3q.example",
		"localhost":             "localhost",
		"1.example":             "1.example",
		"0xy.example.0xyz":      "0xy.example.0xyz",
		long + ".example":       long + ".example",
		max:                     max,
		max + ".":               max,
	} {
		host, addr, err := ParseHost(raw)
		if err != nil || host != want || addr.IsValid() {
			t.Errorf("ParseHost(%q) = %q, %v, %v; want %q", raw, host, addr, err, want)
			continue
		}
		again, _, err := ParseHost(host)
		if err != nil || again != host {
			t.Errorf("ParseHost(%q) = %q, %v: not stable", host, again, err)
		}
		leaf := x509.Certificate{DNSNames: []string{host}}
		if err := leaf.VerifyHostname(host); err != nil {
			t.Errorf("no client takes a leaf for %q: %v", host, err)
		}
	}
}

func TestA04NoName(t *testing.T) {
	for what, raw := range map[string]string{
		"nothing":                        "",
		"the root":                       ".",
		"two dots at the end":            "example.com..",
		"two dots inside":                "example..com",
		"a dot in front":                 ".example.com",
		"brackets around a name":         "[example.com]",
		"full-width letters":             "ｅｘａｍｐｌｅ.com",
		"a full-width dot":               "example。com",
		"Unicode on the wire":            "bücher.example",
		"a zero-width joiner":            "exam\u200dple.com",
		"a soft hyphen":                  "exam\u00adple.com",
		"punycode of plain ASCII":        "xn--example-.com",
		"punycode of nothing":            "xn--.com",
		"punycode that is broken":        "xn--\u0061\u0061999999.com",
		"punycode of a capital U umlaut": "xn--bcher-2pa.example",
		"punycode of full-width":         "xn--mi7c.example",
		"punycode of a joiner":           "xn--ab-m1t.example",
		"punycode of a soft hyphen":      "xn--ab-5da.example",
		"a label of 64":                  strings.Repeat("a", 64) + ".com",
		"254 bytes":                      strings.Repeat("a.", 126) + "ab",
		"a hyphen in front":              "-a.example",
		"a hyphen at the end":            "a-.example",
		"a space":                        "example .com",
		"a wildcard":                     "*.example.com",
		"a star":                         "*",
		"a comma":                        "a.example,b.example",
		"a slash":                        "a.example/b",
		"a percent":                      "a%2eexample",
		"an at sign":                     "a@b.example",
		"a backslash":                    `a.example\b`,
		"a port where there is none":     "a.example:443",
		"a port that is a name's end":    "a:b:c",
	} {
		_, _, err := ParseHost(raw)
		checkRefusal(t, what+" "+raw, err, 400, ReasonBadHost)
	}
}

func TestA05ControlsInNames(t *testing.T) {
	for _, raw := range []string{
		"evil.test\x00.allowed.test", "allowed.test\x00", "\x00", "a\nb.test", "allowed.test\r\n",
		"a\tb.test", "allowed.test\x7f", "\xff\xfe.test", "allowed.test\x80",
	} {
		_, _, err := ParseHost(raw)
		checkRefusal(t, raw, err, 400, ReasonBadHost)
		_, err = ParseAuthority(raw+":443", 0)
		checkRefusal(t, raw+":443", err, 400, ReasonBadHost)
		deny(t, inTunnel(), &http1.RequestHead{
			Method: []byte("GET"), Target: []byte("/"), Minor: 1, Host: []byte(raw),
		}, 400, ReasonBadHost)
	}
}

func TestA07Ports(t *testing.T) {
	for raw, want := range map[string]uint16{"a.example:1": 1, "a.example:443": 443, "a.example:65535": 65535, "a.example": 99, "[2001:db8::1]:8443": 8443, "[::1]": 99} {
		a, err := ParseAuthority(raw, 99)
		if err != nil || a.Port != want {
			t.Errorf("ParseAuthority(%q) = %v, %v; want port %d", raw, a, err, want)
		}
	}
	for _, raw := range []string{
		"a.example:0443", "a.example:+443", "a.example:99999", "a.example:65536", "a.example:", "a.example:443:80",
		"a.example:0", "a.example:-1", "a.example: 443", "a.example:443 ", "a.example:0x1bb", "a.example:4_43", "a.example:٤٤٣",
		"a.example:100000", "[::1]443", "[::1]:", "[::1]x", "[::1]:443:443", "a.example:443/",
	} {
		_, err := ParseAuthority(raw, 443)
		checkRefusal(t, raw, err, 400, ReasonBadPort)
	}
	_, err := ParseAuthority("a.example", 0)
	checkRefusal(t, "CONNECT without a port", err, 400, ReasonBadPort)
	_, err = ParseAuthority(":443", 0)
	checkRefusal(t, "CONNECT without a host", err, 400, ReasonBadHost)
	_, err = ParseAuthority("", 443)
	checkRefusal(t, "an empty authority", err, 400, ReasonBadHost)
}

func TestA08AddressesInOneSpelling(t *testing.T) {
	for raw, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "192.0.2.255": "192.0.2.255", "0.0.0.0": "0.0.0.0",
		"[::1]": "::1", "[2001:db8::1]": "2001:db8::1", "[::]": "::", "[fd00:ec2::254]": "fd00:ec2::254",
	} {
		a, err := ParseAuthority(raw, 443)
		if err != nil || a.Host != want || a.Addr != netip.MustParseAddr(want) {
			t.Errorf("ParseAuthority(%q) = %+v, %v", raw, a, err)
			continue
		}
		again, err := ParseAuthority(a.String(), 0)
		if err != nil || again != a {
			t.Errorf("ParseAuthority(%q) = %+v, %v: not stable", a.String(), again, err)
		}
	}
	for _, raw := range []string{
		"127.1", "0x7f000001", "2130706433", "0x7f.0.0.1", "127.0.0.0x1", "0177.0.0.1", "127.0.0.01", "127.0.0.1.", "1.2.3",
		"1.2.3.4.5", "256.1.1.1", "1.2.3.256", "0", "0x", "0X7F", "a.0x", "a.1", "example.123", "127.0.0.1%eth0",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[0:0:0:0:0:0:0:1]", "[::01]", "[2001:DB8::1]",
		"[2001:db8:0:0::1]", "[::1.2.3.4]", "[127.0.0.1]", "[]", "[::1", "[[::1]]", "[v1.x]",
	} {
		_, err := ParseAuthority(raw, 443)
		checkRefusal(t, raw, err, 400, ReasonBadHost)
	}
	for _, raw := range []string{"::1", "2001:db8::1"} {
		if host, addr, err := ParseHost(raw); err != nil || host != raw || addr != netip.MustParseAddr(raw) {
			t.Errorf("ParseHost(%q) = %q, %v, %v", raw, host, addr, err)
		}
	}
	for _, raw := range []string{"::ffff:1.2.3.4", "[::1]", "::1%lo", "::"[:1]} {
		_, _, err := ParseHost(raw)
		checkRefusal(t, raw, err, 400, ReasonBadHost)
	}
	_, err := ParseAuthority("::1", 443)
	checkRefusal(t, "IPv6 without brackets", err, 400, ReasonBadHost)
}

func TestUnicodeHostsOfAFile(t *testing.T) {
	for raw, want := range map[string]string{
		"bücher.example": "xn--bcher-kva.example", "BÜCHER.example": "xn--bcher-kva.example", "例え.テスト": "xn--r8jz45g.xn--zckzah",
		"straße.example": "xn--strae-oqa.example", "Plain.Example": "plain.example", "::1": "::1",
	} {
		host, _, err := ParseUnicodeHost(raw)
		if err != nil || host != want {
			t.Errorf("ParseUnicodeHost(%q) = %q, %v; want %q", raw, host, err, want)
			continue
		}
		if again, _, err := ParseHost(host); err != nil || again != host {
			t.Errorf("%q from %q is not what the wire may say: %v", host, raw, err)
		}
	}
	for _, raw := range []string{"exam\u200dple.com", "a\u2024b.example", "bü cher.example", "１２７.１", "\xffa.example"} {
		_, _, err := ParseUnicodeHost(raw)
		checkRefusal(t, raw, err, 400, ReasonBadHost)
	}
}

func host(method, target, host string) *http1.RequestHead {
	return &http1.RequestHead{Method: []byte(method), Target: []byte(target), Minor: 1, Host: []byte(host)}
}

func TestA02HostMustBeTheConnectionsName(t *testing.T) {
	in := inTunnel()
	for _, ok := range []string{"api.example", "API.example", "api.example.", "api.example:443", "API.EXAMPLE.:443"} {
		if r := accept(t, in, host("GET", "/", ok)); r.Authority != in.Authority {
			t.Errorf("Host %q: %v", ok, r.Authority)
		}
	}
	for _, other := range []string{"evil.example", "api.example:80", "api.example:8443", "x.api.example", "pi.example", "192.0.2.1", "[::1]"} {
		deny(t, in, host("GET", "/", other), 421, ReasonNameMismatch)
	}
	for raw, reason := range map[string]string{
		"": ReasonBadHost, "api.example..": ReasonBadHost, "api.example:": ReasonBadPort, "api.example:0443": ReasonBadPort,
		"user@api.example": ReasonBadHost, "api.example, evil.example": ReasonBadHost, "api.example/": ReasonBadHost,
		"https://api.example": ReasonBadPort,
	} {
		deny(t, in, host("GET", "/", raw), 400, reason)
	}

	in.Authority.Port = 8443
	accept(t, in, host("GET", "/", "api.example:8443"))
	deny(t, in, host("GET", "/", "api.example"), 421, ReasonNameMismatch) // means 443

	in.Authority = Authority{Host: "::1", Addr: netip.MustParseAddr("::1"), Port: 443}
	accept(t, in, host("GET", "/", "[::1]"))
	accept(t, in, host("GET", "/", "[::1]:443"))
	deny(t, in, host("GET", "/", "::1"), 400, ReasonBadHost)
	in.Authority = Authority{Host: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1"), Port: 443}
	accept(t, in, host("GET", "/", "192.0.2.1"))
	deny(t, in, host("GET", "/", "192.0.2.01"), 400, ReasonBadHost)
}

func TestA02HTTP10WithoutHost(t *testing.T) {
	deny(t, inTunnel(), head(t, "GET / HTTP/1.0"), 400, ReasonBadHost)
	accept(t, inTunnel(), head(t, "GET / HTTP/1.0\nHost: api.example"))
	accept(t, onProxyPort(), head(t, "GET http://a.example/ HTTP/1.0"))
}

func TestA02NoAgreedNameIsNoName(t *testing.T) {
	for _, in := range []Inbound{
		{Kind: intake.Connect, Scheme: HTTPS},
		{Kind: intake.Connect, Scheme: HTTP, Authority: Authority{Port: 80}},
		{Kind: intake.Transparent, Scheme: HTTPS, Authority: Authority{Port: 443}},
		{Kind: intake.Transparent, Scheme: HTTP},
		{Kind: intake.Connect, Scheme: HTTPS, Authority: Authority{Host: "api.example"}},
	} {
		deny(t, in, get("/"), 421, ReasonNameMismatch)
	}
	deny(t, Inbound{Kind: intake.Connect, Authority: inTunnel().Authority}, get("/"), 400, ReasonBadScheme)
	deny(t, Inbound{Kind: intake.Connect, Scheme: Tunnel, Authority: inTunnel().Authority}, get("/"), 400, ReasonBadScheme)
	deny(t, Inbound{Scheme: HTTPS, Authority: inTunnel().Authority}, get("/"), 400, ReasonBadTarget)
}

func TestA02RedirectedPlainHTTPIsNamedByHost(t *testing.T) {
	in := Inbound{Kind: intake.Transparent, Scheme: HTTP, Authority: Authority{Port: 80}}
	r := new(Request)
	for raw, want := range map[string]string{"A.example": "a.example", "b.example:80": "b.example", "192.0.2.1": "192.0.2.1"} {
		if err := r.FromHTTP1(1, in, host("GET", "/", raw)); err != nil || r.Host != want || r.Port != 80 {
			t.Errorf("Host %q: %v, %v", raw, r.Authority, err)
		}
	}
	deny(t, in, host("GET", "/", "a.example:8080"), 421, ReasonNameMismatch)
	in.Authority.Port = 8080
	deny(t, in, host("GET", "/", "a.example"), 421, ReasonNameMismatch)
	accept(t, in, host("GET", "/", "a.example:8080"))
	deny(t, in, host("GET", "http://a.example:8080/", "a.example:8080"), 400, ReasonBadTarget)
}

func TestCanonicalAuthoritiesDoNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		ParseAuthority("api.openai.com:443", 0)
		ParseAuthority("[2001:db8::1]:443", 0)
		ParseHost("192.0.2.1")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
