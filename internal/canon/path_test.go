package canon

import (
	"net/url"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// path checks that the target is accepted, judged and forwarded as want, and
// that reading it again changes nothing: row P8.
func path(t *testing.T, target, want string, quirks Quirks) {
	t.Helper()
	r := accept(t, inTunnel(), get(target))
	if string(r.Path) != want || r.Quirks != quirks {
		t.Errorf("%q is judged as %q with quirks %v, want %q with %v", target, r.Path, r.Quirks, want, quirks)
	}
	again := accept(t, inTunnel(), get(string(r.Target(nil))))
	if string(again.Target(nil)) != string(r.Target(nil)) || again.Quirks != r.Quirks {
		t.Errorf("%q becomes %q, and that becomes %q", target, r.Target(nil), again.Target(nil))
	}
	u, err := url.ParseRequestURI(string(r.Target(nil)))
	if err != nil {
		t.Errorf("net/url does not read %q: %v", r.Target(nil), err)
		return
	}
	if u.Path != string(AppendDecoded(nil, r.Path)) || u.RawQuery != string(r.RawQuery) || u.Host != "" {
		t.Errorf("net/url reads %q as path %q, query %q, host %q", r.Target(nil), u.Path, u.RawQuery, u.Host)
	}
}

func denyPaths(t *testing.T, reason string, targets ...string) {
	t.Helper()
	for _, target := range targets {
		deny(t, inTunnel(), get(target), 400, reason)
		deny(t, inTunnel(), get(target+"?q=1"), 400, reason)
	}
}

func TestP08PathsAsTheyShouldBe(t *testing.T) {
	for _, p := range []string{
		"/", "/v1/messages", "/a/b/", "/a-b_c~d.e", "/...", "/..a", "/a..", "/.well-known/x", "/a:b@c", "/!$&'()*+,=",
		"/%C3%A9", "/%E2%82%AC", "/%F0%9F%98%80", "/100%25", "/%25zz", "/%2520", "/%20", "/%3Fx%23y", "/%7B%7D", "/%40scope",
		"/a[0]|b^c", "/%25%25", "/%252",
	} {
		path(t, p, p, 0)
	}
	path(t, "/%61%2D%7e%5f%2Eb", "/a-~_.b", 0)
	path(t, "/%c3%a9%3f", "/%C3%A9%3F", 0)
	path(t, "/%25%32%30", "/%2520", 0)
}

func TestP01DotSegments(t *testing.T) {
	denyPaths(t, ReasonAmbiguousPath,
		"/.", "/..", "/a/.", "/a/..", "/./a", "/../a", "/a/./b", "/a/../b", "/a/../../b",
		"/%2e", "/%2E%2e", "/.%2e/a", "/%2e./a", "/a/%2e/b",
		"/..;", "/..;/a", "/.;x=1/a", "/%2e%2e;a=b/c", "/..%3B/a", "/..%3bx", "/a/..%20", "/..%20/a",
		"//..", "//../a", "/a//./b",
		"/a/..%2fb", "/a%2f..", "/a%2F..%2Fb", "/a%2f.%2fb", "/%2f..", "/..%2F", "/a%2f..;x",
	)
}

func TestP02Separators(t *testing.T) {
	path(t, "/@scope%2fpkg", "/@scope%2Fpkg", EncodedSlash)
	path(t, "/a%2F", "/a%2F", EncodedSlash)
	path(t, "/%2F%2f", "/%2F%2F", EncodedSlash)
	denyPaths(t, ReasonAmbiguousPath, `/a\b`, `/\`, `/..\b`, "/a%5cb", "/%5C", "/a%5C..%5Cb")
}

func TestP03Controls(t *testing.T) {
	denyPaths(t, ReasonBadPath, "/a%00b", "/%0d%0aX:%20y", "/%0A", "/%09", "/%1f", "/%1F", "/%7f", "/%C2%80", "/%C2%85x", "/%c2%9f")
	for c := range 256 {
		if c > ' ' && c < 0x7f {
			continue
		}
		deny(t, inTunnel(), get("/a"+string([]byte{byte(c)})+"b"), 400, ReasonBadPath)
	}
	path(t, "/%C2%A0", "/%C2%A0", 0)
	path(t, "/%E2%80%A8", "/%E2%80%A8", 0) // U+2028: a character; the log escapes it
}

func TestP04EmptySegmentsAndParameters(t *testing.T) {
	path(t, "//", "//", DoubleSlash)
	path(t, "//evil.example/a", "//evil.example/a", DoubleSlash)
	path(t, "/a//b", "/a//b", DoubleSlash)
	path(t, "/a/b//", "/a/b//", DoubleSlash)
	path(t, "/a;x=1/b", "/a;x=1/b", Semicolon)
	path(t, "/;", "/;", Semicolon)
	path(t, "//a;b%2fc", "//a;b%2Fc", DoubleSlash|Semicolon|EncodedSlash)
	path(t, "/a%3Bb", "/a%3Bb", Semicolon) // to who decodes before cutting parameters off
	path(t, "/a%3b/b%2f", "/a%3B/b%2F", Semicolon|EncodedSlash)
}

func TestP05EncodingsThatAreNone(t *testing.T) {
	denyPaths(t, ReasonBadPath,
		"/%", "/%2", "/a%", "/%zz", "/%2g", "/%g2", "/%u0041", "/%-1", "/% 2f",
		"/%C0%AF", "/%C1%81", "/%E0%80%AF", "/%F0%80%80%AF", "/%C0%80", // not minimal
		"/%80", "/%BF", "/%FF", "/%FE", "/%C3", "/%C3a", "/%C3/%A9", "/%E2%82", "/%E2%82x", "/%C3%28", "/%F0%9F%98", // not UTF-8
		"/%ED%A0%80", "/%F4%90%80%80", "/%F5%80%80%80", // surrogate, beyond U+10FFFF
	)
	denyPaths(t, ReasonAmbiguousPath,
		"/%252f", "/%252F", "/%252e%252e/a", "/%255c", "/%2500", "/%250a", "/%257f", "/%253B", "/%25252f", "/%2525", "/%25C0%25AF", "/%25c3%25a9",
		"/%25%32%66", "/%252%66", "/%25%32f", "/%25%32%65", "/a%252e",
	)
}

func TestP06TargetsThatAreNoPath(t *testing.T) {
	for _, target := range []string{
		"", "a", "a/b", "*", "*?x", "**", "?q", "http:opaque", "http://api.example/", "https://api.example/", "http://api.example", "api.example:443",
		"//"[:0] + "x:/y", "javascript:1", "%2fa", ";/a", "user@api.example/",
	} {
		deny(t, inTunnel(), get(target), 400, ReasonBadTarget)
	}
	denyPaths(t, ReasonBadPath, "/a#b", "/#", `/a"b`, "/a<b", "/a>b", "/a`b", "/a{b}", "/a b")
	deny(t, inTunnel(), get("/a?b#c"), 400, ReasonBadQuery)

	options := get("*")
	options.Method = []byte("OPTIONS")
	r := accept(t, inTunnel(), options)
	if string(r.Path) != "*" || string(r.Target(nil)) != "*" {
		t.Errorf("OPTIONS *: %q", r.Target(nil))
	}
	options.Target = []byte("*?a")
	deny(t, inTunnel(), options, 400, ReasonBadTarget)
}

func TestP06AbsoluteFormOnTheProxyPort(t *testing.T) {
	for _, row := range []struct{ method, target, host, authority, want string }{
		{"GET", "http://a.example/x?y", "a.example", "a.example:80", "/x?y"},
		{"GET", "HTTP://A.example:80/x", "a.example", "a.example:80", "/x"},
		{"GET", "http://a.example:8080/", "a.example:8080", "a.example:8080", "/"},
		{"GET", "http://a.example", "a.example", "a.example:80", "/"},
		{"GET", "http://a.example?q", "a.example", "a.example:80", "/?q"},
		{"GET", "http://[::1]:81/", "[::1]:81", "[::1]:81", "/"},
		{"OPTIONS", "http://a.example", "a.example", "a.example:80", "*"},
		{"OPTIONS", "http://a.example/", "a.example", "a.example:80", "/"},
	} {
		r := accept(t, onProxyPort(), host(row.method, row.target, row.host))
		if r.Authority.String() != row.authority || string(r.Target(nil)) != row.want || r.Scheme != HTTP {
			t.Errorf("%s %s: %v, %q", row.method, row.target, r.Authority, r.Target(nil))
		}
	}
	for _, row := range []struct {
		target, host string
		status       int
		reason       string
	}{
		{"/", "a.example", 400, ReasonBadTarget},
		{"", "a.example", 400, ReasonBadTarget},
		{"*", "a.example", 400, ReasonBadTarget},
		{"a.example:80", "a.example", 400, ReasonBadTarget},
		{"https://a.example/", "a.example", 400, ReasonBadTarget},
		{"ftp://a.example/", "a.example", 400, ReasonBadTarget},
		{"http:/a.example/", "a.example", 400, ReasonBadTarget},
		{"http:a", "a.example", 400, ReasonBadTarget},
		{"ws://user:secret@a.example/", "a.example", 400, ReasonBadTarget},
		{"http://a.example#f", "a.example", 400, ReasonBadTarget},
		{"http://a.example/#f", "a.example", 400, ReasonBadPath},
		{"http://user@a.example/", "a.example", 400, ReasonBadHost},
		{"http://user:pw@a.example/", "a.example", 400, ReasonBadHost},
		{"http:///x", "a.example", 400, ReasonBadHost},
		{"http://", "a.example", 400, ReasonBadHost},
		{"http://a.example:/", "a.example", 400, ReasonBadPort},
		{`http://a.example\b/`, "a.example", 400, ReasonBadHost},
		{"http://127.1/", "127.1", 400, ReasonBadHost},
		{"http://a.example/../x", "a.example", 400, ReasonAmbiguousPath},
		{"http://a.example?%zz", "a.example", 400, ReasonBadQuery},
		{"http://a.example/", "b.example", 421, ReasonNameMismatch},
		{"http://a.example:8080/", "a.example", 421, ReasonNameMismatch},
		{"http://a.example/", "", 400, ReasonBadHost},
		{"http://a.example/", "b example", 400, ReasonBadHost},
	} {
		deny(t, onProxyPort(), host("GET", row.target, row.host), row.status, row.reason)
	}
	deny(t, Inbound{Kind: intake.Plain, Scheme: HTTPS}, host("GET", "http://a.example/", "a.example"), 400, ReasonBadTarget)

	var r Request
	err := r.FromHTTP1(1, onProxyPort(), host("GET", "ws://user:secret@a.example/?token=secret", "a.example"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a secret in the log: %v", err)
	}
}

func TestP07Query(t *testing.T) {
	for _, q := range []string{
		"", "a", "a=b&c=d", "a=b&a=c", "&&=", "a=%2f%2F", "q=a+b%20c", `q="<>[\]^` + "`{|}", "a=1;b=2", "family=Open+Sans:wght@400;700", "x=/../y",
		"%e9", "a=%0A", "a?b?c", "q=%25zz",
	} {
		path(t, "/x?"+q, "/x", 0)
		r := accept(t, inTunnel(), get("/x?"+q))
		if string(r.RawQuery) != q || !r.HasQuery || string(r.Target(nil)) != "/x?"+q {
			t.Errorf("query %q is forwarded as %q", q, r.Target(nil))
		}
	}
	if r := accept(t, inTunnel(), get("/x")); r.HasQuery || r.RawQuery != nil {
		t.Errorf("no query: %q", r.RawQuery)
	}
	for _, q := range []string{"%zz", "a=%", "a=%2", "a=%u0041", "a\x00b", "a=%00", "a b", "a#b", "a=é", "a\x7f", "a\tb", "\xff"} {
		deny(t, inTunnel(), get("/x?"+q), 400, ReasonBadQuery)
		checkRefusal(t, q, CheckQuery([]byte(q)), 400, ReasonBadQuery)
	}
	if err := CheckQuery([]byte("a=b;c")); err != nil {
		t.Error(err)
	}
	var r Request
	err := r.FromHTTP1(1, inTunnel(), get("/x?key=hunter2%zz"))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a query's value in the log: %v", err)
	}
}

func TestP07QueryThatHasTwoReadings(t *testing.T) {
	for q, want := range map[string]bool{
		"": false, "a=b&c": false, "a=%C3%A9": false, "a=%2B": false,
		"a=1;b=2": true, ";": true, "a=%E9": true, "%C0%AF=1": true, "a=%C3&b=%A9": true, "a=%3B": false,
	} {
		r := accept(t, inTunnel(), get("/x?"+q))
		if r.QueryAmbiguous() != want {
			t.Errorf("QueryAmbiguous(%q) = %v", q, !want)
		}
	}
}

func TestQueryKeysNeverValues(t *testing.T) {
	for q, want := range map[string]string{
		"":                             "",
		"a=secret&b=secret2":           "a,b",
		"a=1&a=2;c=3":                  "a,c",
		"%61+b%2B=x&&=y":               "a b+",
		"SECRETTOKEN":                  "",
		"a=1&SECRET;SECRET2&b=2":       "a,,b",
		"flag=":                        "flag",
		"acl":                          "acl",
		"uploads&SECRET&versionId=v":   "uploads,,versionId",
		"ACL&%61cl&acl+&policyx":       "",
		strings.Repeat("k", 300) + "=": strings.Repeat("k", 256),
		"a=b=c&d==":                    "a,d",
		"%E9=1":                        "\xe9",
	} {
		r := accept(t, inTunnel(), get("/x?"+q))
		keys, all := r.QueryKeys(nil)
		if got := strings.Join(keys, ","); got != want || all != len(keys) {
			t.Errorf("QueryKeys(%q) = %q and %d, want %q", q, got, all, want)
		}
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = "k" + strings.Repeat("x", i) + "=1"
	}
	r := accept(t, inTunnel(), get("/x?"+strings.Join(many, "&")))
	if got, all := r.QueryKeys([]string{"before"}); len(got) != 65 || got[0] != "before" || all != len(many) {
		t.Errorf("%d keys of %d", len(got), all)
	}
}

func TestAppendPathForPatterns(t *testing.T) {
	got, q, err := AppendPath([]byte("x"), []byte("/v1/%61/*/%2f/**"))
	if err != nil || string(got) != "x/v1/a/*/%2F/**" || q != EncodedSlash {
		t.Errorf("%q, %v, %v", got, q, err)
	}
	for raw, reason := range map[string]string{"/%": ReasonBadPath, "/..": ReasonAmbiguousPath, "": ReasonBadTarget, "a": ReasonBadTarget} {
		got, q, err := AppendPath([]byte("x"), []byte(raw))
		checkRefusal(t, raw, err, 400, reason)
		if string(got) != "x" || q != 0 {
			t.Errorf("AppendPath(%q) left %q, %v", raw, got, q)
		}
	}
}

func TestAppendDecodedIsWhatAnOriginSees(t *testing.T) {
	for raw, want := range map[string]string{"a%3Ab": "a:b", "%C3%A9": "é", "": "", "%2F": "/", "100%25": "100%", "a%": "a%", "%zz": "%zz"} {
		if got := string(AppendDecoded(nil, []byte(raw))); got != want {
			t.Errorf("AppendDecoded(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestH07MethodsAreUpperCaseTokens(t *testing.T) {
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "VERSION-CONTROL"} {
		if r := accept(t, inTunnel(), host(m, "/", "api.example")); r.Method != m {
			t.Errorf("%s became %s", m, r.Method)
		}
	}
	for _, m := range []string{"", "get", "Delete", "PATCh", "GET ", "G\x00T", "GÉT", strings.Repeat("A", http1.MaxMethod+1)} {
		deny(t, inTunnel(), host(m, "/", "api.example"), 400, ReasonBadMethod)
	}
}

func TestMethodsThatEchoTheRequest(t *testing.T) {
	for _, m := range []string{"TRACE", "TRACK"} {
		deny(t, inTunnel(), host(m, "/", "api.example"), 405, ReasonBadMethod)
		deny(t, onProxyPort(), host(m, "http://api.example/", "api.example"), 405, ReasonBadMethod)
	}
	deny(t, inTunnel(), host("trace", "/", "api.example"), 400, ReasonBadMethod)
	accept(t, inTunnel(), host("TRACER", "/", "api.example"))
}

// TestAnErrorDoesNotRepeatThePath has paths that a rule may have recorded as a
// hash, refused for something in them.
func TestAnErrorDoesNotRepeatThePath(t *testing.T) {
	for _, bad := range []string{
		"%zz", "%2", "/..", "/..;hunter2", `\`, "%5c", "%00", "%252f", "%c3%28", "\x01", "\xff", "#", "{",
	} {
		for _, target := range []string{"/hunter2" + bad + "/hunter2", "/hunter2/" + bad, "/" + bad + "/hunter2?hunter2", "hunter2/" + bad} {
			var r Request
			err := r.FromHTTP1(1, inTunnel(), get(target))
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v", target, err)
			}
			err = r.FromHTTP1(1, onProxyPort(), host("GET", "ftp://hunter2.example"+target, "hunter2.example"))
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q on the proxy port: %v", target, err)
			}
		}
	}
	for target, want := range map[string]string{
		"/abc%zzd":  `broken percent-encoding "%zz", 4 bytes into the path`,
		"/abc/../d": "dot segment, 5 bytes into the path",
		"/abc%5cd":  "encoded backslash, %5C, 4 bytes into the path",
		"/abc{d":    "byte 0x7b, 4 bytes into the path",
		"/a?b%zz":   "broken percent-encoding in the query, 1 bytes in",
		"abc":       `a target that is not a path, beginning "a"`,
		"https://a": `a target that is not a path, beginning "https://"`,
	} {
		if err := new(Request).FromHTTP1(1, inTunnel(), get(target)); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", target, err, want)
		}
	}
}

func TestA16ConnectInsideATunnel(t *testing.T) {
	deny(t, inTunnel(), host("CONNECT", "api.example:443", "api.example"), 405, ReasonNestedConnect)
	deny(t, inTunnel(), host("CONNECT", "/", "api.example"), 405, ReasonNestedConnect)
	deny(t, onProxyPort(), host("CONNECT", "http://api.example/", "api.example"), 405, ReasonNestedConnect)
}
