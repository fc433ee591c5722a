package fuzz

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// FuzzCanonPath reads a request target as the engine does. The property is row
// P8: reading what is forwarded once more changes nothing, and what the
// origin's parser (here net/url) sees as path and query is what was judged.
func FuzzCanonPath(f *testing.F) {
	for _, target := range []string{
		"/", "/v1/chat/completions", "/a/b/?q=1&r=2", "/%61%2d%7E", "/%c3%a9/%E2%82%AC", "/@scope%2fpkg", "/a;x=1//b",
		"/..", "/%2e%2e/a", "/..;/a", "/..%3B", "/a%2f..", `/a\b`, "/%5c", "/%00", "/%0d%0a", "/%zz", "/%2", "/%C0%AF", "/%ED%A0%80",
		"/%252f", "/%25%32%66", "/%2525", "/100%25", "/a#b", "/a b", "/é", "//evil.example/a", "*", "*?", "http://evil/x", "http:opaque",
		"/?", "/?%zz", "/?a=1;b=2", "/?a=%00", "/?#", "/?_method=DELETE", "/x?/../?", "/a[0]|b^c", "/:80/@a", "/%3Fa?b", "/...",
	} {
		f.Add([]byte(target))
	}
	in := canon.Inbound{Kind: intake.Connect, Scheme: canon.HTTPS, Authority: canon.Authority{Host: "api.example", Port: 443}}
	f.Fuzz(func(t *testing.T, target []byte) {
		h := &http1.RequestHead{Method: []byte("GET"), Target: target, Minor: 1, Host: []byte("api.example")}
		before := bytes.Clone(target)
		var r, again canon.Request
		if err := r.FromHTTP1(1, in, h); err != nil {
			mustBeRefusal(t, err)
			if r.Scheme != canon.NoScheme || r.Path != nil {
				t.Fatalf("%q: refused, but left %+v", target, &r)
			}
			return
		}
		if !bytes.Equal(before, target) {
			t.Fatalf("%q was changed to %q in the reader's buffer", before, target)
		}
		sent := r.Target(nil)
		if len(sent) > len(target) {
			t.Fatalf("%q grew to %q", target, sent)
		}
		h.Target = sent
		if err := again.FromHTTP1(2, in, h); err != nil {
			t.Fatalf("%q is forwarded as %q, which is refused: %v", target, sent, err)
		}
		if !bytes.Equal(again.Target(nil), sent) || again.Quirks != r.Quirks {
			t.Fatalf("%q becomes %q, and that becomes %q", target, sent, again.Target(nil))
		}
		originSees(t, &r, sent)
		noSecondReading(t, &r)
	})
}

// originSees holds net/url's reading of what is sent against what was judged.
func originSees(t *testing.T, r *canon.Request, sent []byte) {
	t.Helper()
	u, err := url.ParseRequestURI(string(sent))
	if err != nil {
		t.Fatalf("net/url does not read %q: %v", sent, err)
	}
	if u.Path != string(canon.AppendDecoded(nil, r.Path)) || u.RawQuery != string(r.RawQuery) || u.Host != "" || u.User != nil || u.Scheme != "" || u.Fragment != "" {
		t.Fatalf("net/url reads %q as %#v", sent, u)
	}
	if !bytes.ContainsAny(r.Path, "|^") && u.EscapedPath() != string(r.Path) {
		t.Fatalf("net/url writes %q as %q", r.Path, u.EscapedPath())
	}
	if u.ForceQuery != (r.HasQuery && len(r.RawQuery) == 0) {
		t.Fatalf("net/url and canon differ on whether %q has a query", sent)
	}
}

// noSecondReading looks for what a careless origin could make of the path:
// decode it, or decode it twice, cut parameters, and find another path.
func noSecondReading(t *testing.T, r *canon.Request) {
	t.Helper()
	if !utf8.Valid(canon.AppendDecoded(nil, r.Path)) {
		t.Fatalf("path %q is not UTF-8 once decoded", r.Path)
	}
	once := canon.AppendDecoded(nil, r.Path)
	twice := canon.AppendDecoded(nil, once)
	for _, seen := range [][]byte{r.Path, once, twice} {
		if i := bytes.IndexFunc(seen, func(c rune) bool { return c < ' ' || c == '\\' || c == 0x7f }); i >= 0 {
			t.Fatalf("path %q is %q to somebody", r.Path, seen)
		}
		for _, segment := range strings.Split(string(seen), "/") {
			if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
				t.Fatalf("path %q has a dot segment to somebody: %q", r.Path, seen)
			}
		}
		if r.Quirks&canon.EncodedSlash == 0 && bytes.Count(seen, []byte("/")) != bytes.Count(r.Path, []byte("/")) {
			t.Fatalf("path %q has other segments to somebody: %q", r.Path, seen)
		}
	}
}

// FuzzAuthority reads an authority as CONNECT, Host and :authority are read.
// What is accepted has one spelling, which every reader here agrees on.
func FuzzAuthority(f *testing.F) {
	for _, raw := range []string{
		"example.com", "EXAMPLE.com.:443", "example.com..", "a_b.example:1", "xn--bcher-kva.example", "XN--BCHER-KVA.example", "xn--.com",
		"bücher.example", "ｅxample.com", "a\u200db.example", "evil.test\x00.allowed.test", "a\n.b", "*.a", "a,b", "user@a.example",
		"a.example:0443", "a.example:+443", "a.example:99999", "a.example:", "a:443:80", ":443", "", ".", "-a.b", "a-.b",
		"127.0.0.1", "127.1", "0x7f000001", "2130706433", "1.2.3.4.", "0177.0.0.1", "a.0x", "[::1]", "[::1]:443", "[::ffff:1.2.3.4]",
		"[fe80::1%eth0]", "[2001:DB8::1]", "[::1", "::1", "[a.example]", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 127) + "a",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := canon.ParseAuthority(raw, 443)
		if err != nil {
			mustBeRefusal(t, err)
			if a != (canon.Authority{}) {
				t.Fatalf("%q: refused, but left %+v", raw, a)
			}
			return
		}
		if a.Host == "" || a.Port == 0 {
			t.Fatalf("%q: accepted as %+v", raw, a)
		}
		again, err := canon.ParseAuthority(a.String(), 0)
		if err != nil || again != a {
			t.Fatalf("%q is %+v, whose text is read as %+v, %v", raw, a, again, err)
		}
		host, addr, err := canon.ParseHost(a.Host)
		if err != nil || host != a.Host || addr != a.Addr {
			t.Fatalf("ParseHost(%q) = %q, %v, %v", a.Host, host, addr, err)
		}
		u, err := url.Parse("https://" + a.String() + "/")
		if err != nil || u.Hostname() != a.Host || u.Path != "/" || u.User != nil {
			t.Fatalf("net/url reads %q as %#v, %v", a.String(), u, err)
		}
		leafFits(t, a)
	})
}

// leafFits checks that crypto/x509 matches the name on a leaf that is made for
// it, as what it is: a DNS name or an address.
func leafFits(t *testing.T, a canon.Authority) {
	t.Helper()
	var leaf x509.Certificate
	name := a.Host
	if parsed, err := netip.ParseAddr(a.Host); err == nil {
		if parsed != a.Addr {
			t.Fatalf("%q is an address to net/netip and %v to canon", a.Host, a.Addr)
		}
		leaf.IPAddresses = append(leaf.IPAddresses, a.Addr.AsSlice())
		name = "[" + name + "]"
	} else {
		if a.Addr.IsValid() {
			t.Fatalf("%q is %v to canon and no address to net/netip", a.Host, a.Addr)
		}
		leaf.DNSNames = append(leaf.DNSNames, a.Host)
	}
	if err := leaf.VerifyHostname(name); err != nil {
		t.Fatalf("no client would take the leaf for %q: %v", a.Host, err)
	}
}

func mustBeRefusal(t *testing.T, err error) {
	t.Helper()
	var e *canon.Error
	if !errors.As(err, &e) || e.Reason == "" || e.Status < 400 || e.Detail == "" {
		t.Fatalf("not a refusal that can be answered and recorded: %#v", err)
	}
}
