package canon

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// fields writes the fields that are forwarded, one a line.
func fields(r *Request) string {
	var b strings.Builder
	for _, f := range r.Fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	return b.String()
}

func post(lines string) string {
	return strings.TrimSuffix("POST /x HTTP/1.1\nHost: api.example\n"+lines, "\n")
}

func TestFieldsOfTheConnectionAreLeftOut(t *testing.T) {
	r := accept(t, inTunnel(), head(t, post(`Accept: */*
Connection: keep-alive, TE, X-Per-Hop,, upgrade
X-Per-Hop: 1
x-per-hop: 2
Keep-Alive: timeout=5
Proxy-Connection: keep-alive
Proxy-Authorization: Basic c2VjcmV0
Proxy-Authenticate: Basic
TE: gzip;q=0.5, Trailers
Trailer: X-Sum
HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA
Upgrade: h2c
Expect: 100-continue
Content-Length: 3
X-Stays: yes
X_Custom: also
Cookie: a=b
`)))
	if got, want := fields(r), "Accept: */*\nX-Stays: yes\nX_Custom: also\nCookie: a=b\n"; got != want {
		t.Errorf("forwarded:\n%swant:\n%s", got, want)
	}
	if r.Framing != http1.Length || r.Length != 3 || !r.ExpectContinue || !r.TETrailers || r.Upgrade != NoUpgrade || r.Quirks != 0 {
		t.Errorf("%+v", r)
	}
}

func announced(r *Request) string { return string(bytes.Join(r.Trailers, []byte(" "))) }

func TestS18AnnouncedTrailers(t *testing.T) {
	r := accept(t, inTunnel(), head(t, post("Trailer: X-Sum,, x_other ,\nTrailer: \nTrailer: Server-Timing")))
	if got, want := announced(r), "X-Sum x_other Server-Timing"; got != want || fields(r) != "" {
		t.Errorf("announced %q, want %q, and forwarded %q", got, want, fields(r))
	}
	var dst Request
	r.CopyTo(&dst)
	if err := r.FromHTTP1(2, inTunnel(), get("/")); err != nil || len(r.Trailers) != 0 {
		t.Errorf("%v; the next request announces %q", err, r.Trailers)
	}
	if announced(&dst) != "X-Sum x_other Server-Timing" {
		t.Errorf("a copy has %q", announced(&dst))
	}
	for _, list := range append([]string{"a b", "a;b", "\"a\"", "X-Sum, é"}, notTrailers...) {
		deny(t, inTunnel(), head(t, post("Trailer: X-Fine, "+list)), 400, ReasonBadTrailer)
	}
	most := strings.TrimSuffix(strings.Repeat("a,", http1.MaxTrailerFields), ",")
	accept(t, inTunnel(), head(t, post("Trailer: "+most)))
	deny(t, inTunnel(), head(t, post("Trailer: "+most+",a")), 400, ReasonBadTrailer)
}

// notTrailers mean something only before the body.
var notTrailers = []string{
	"Host", "Content-Length", "Transfer-Encoding", "Trailer", "TE", "Connection", "Authorization", "Cookie", "Content-Type", "content_type",
	"Proxy-Authorization", "Proxy-Anything", "If-Match", "X-Forwarded-For", "Forwarded", "X-HTTP-Method-Override", "X-Rewrite-URL", "X-Host",
	"Set-Cookie", "Cache-Control", "Pragma", "Sec-WebSocket-Protocol", "X-Original-Anything",
}

func TestTEWithoutTrailers(t *testing.T) {
	for _, line := range []string{"TE: gzip", "TE: ", "TE: trailers;q=0.5", "X-TE: trailers"} {
		if r := accept(t, inTunnel(), head(t, post(line))); r.TETrailers {
			t.Errorf("%s: TETrailers", line)
		}
	}
}

func TestBodies(t *testing.T) {
	for lines, want := range map[string]struct {
		f http1.Framing
		n int64
	}{
		"":                           {http1.NoBody, 0},
		"Content-Length: 0":          {http1.Length, 0},
		"Content-Length: 7":          {http1.Length, 7},
		"Transfer-Encoding: chunked": {http1.Chunked, -1},
	} {
		r := accept(t, inTunnel(), head(t, post(lines)))
		if r.Framing != want.f || r.Length != want.n {
			t.Errorf("%q: %v, %d", lines, r.Framing, r.Length)
		}
	}
	h := get("/")
	h.Framing = http1.UntilClose
	deny(t, inTunnel(), h, 400, ReasonBadFraming)
	h.Framing = 99
	deny(t, inTunnel(), h, 400, ReasonBadFraming)
}

func TestB02ASecondLineOfWhatHasOneValue(t *testing.T) {
	for _, name := range []string{
		"Content-Type", "Authorization", "Content-Encoding", "Content-Range", "Content-Location", "Range", "Cookie", "User-Agent",
		"Referer", "Origin", "From", "Date", "Max-Forwards", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
		"Sec-WebSocket-Key", "Sec-WebSocket-Version",
	} {
		line := name + ": a\n"
		accept(t, inTunnel(), head(t, post(line)))
		deny(t, inTunnel(), head(t, post(line+line)), 400, ReasonBadHeader)
		deny(t, inTunnel(), head(t, post(line+"Accept: b\n"+strings.ToUpper(name)+": b\n")), 400, ReasonBadHeader)
	}
	accept(t, inTunnel(), head(t, post("Accept: a\nAccept: b\nX-Any: a\nX-Any: b\nSec-WebSocket-Protocol: a\nSec-WebSocket-Protocol: b")))
}

func TestS16NamesThatCGIReadsAsOthers(t *testing.T) {
	for _, name := range []string{
		"Content_Length", "Transfer_Encoding", "Content_Type", "User_Agent", "Proxy_Authorization", "keep_alive", "If_Range", "Sec_WebSocket-Key", "Max_Forwards",
	} {
		h := head(t, post("X: y"))
		h.Fields = append(h.Fields, http1.Field{Name: []byte(name), Value: []byte("1")})
		deny(t, inTunnel(), h, 400, ReasonBadHeader)
	}
}

func TestConnectionMayNotDropWhatWasJudged(t *testing.T) {
	for _, name := range []string{
		"Host", "Content-Length", "Transfer-Encoding", "Expect", "Authorization", "Cookie", "Content-Type", "content-encoding", "Range",
		"X-HTTP-Method-Override", "X-Original-URL", "Forwarded", "Content_Type",
	} {
		h := head(t, post("X: y"))
		h.Fields = append(h.Fields, http1.Field{Name: []byte("connection"), Value: []byte("close, " + name)})
		deny(t, inTunnel(), h, 400, ReasonBadHeader)
	}
	h := head(t, post("X: y"))
	h.Fields = append(h.Fields, http1.Field{Name: []byte("Connection"), Value: []byte("a b")})
	deny(t, inTunnel(), h, 400, ReasonBadHeader)
	accept(t, inTunnel(), head(t, post("Connection: \nConnection: close,\nConnection: x_custom, keep-alive, Proxy-Connection, trailer")))
}

func TestA19OverridesAreTheRulesToDecide(t *testing.T) {
	for _, line := range []string{
		"X-HTTP-Method-Override: DELETE", "x-http-method: DELETE", "X-Method-Override: DELETE", "X_HTTP_Method_Override: DELETE",
		"X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Host: evil.example", "X_Forwarded_Host: evil.example",
		"X-Forwarded-Prefix: /admin", "X-Original-Host: a", "X-Host: a", "Forwarded: for=192.0.2.1;HOST=evil.example",
	} {
		r := accept(t, inTunnel(), head(t, post(line)))
		if r.Quirks != MethodOverride || fields(r) != line+"\n" {
			t.Errorf("%s: quirks %q, forwarded %q", line, r.Quirks, fields(r))
		}
	}
	for _, line := range []string{"X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Method: DELETE", "X-A-Very-Long-Name-Of-A-Field: 1"} {
		if r := accept(t, inTunnel(), head(t, post(line))); r.Quirks != 0 {
			t.Errorf("%s: quirks %q", line, r.Quirks)
		}
	}
	for _, q := range []string{
		"_method=DELETE", "a=b&_method=DELETE", "%5fmethod=PUT", "_METHOD=PUT", "a;_method=PUT", "_method", ".method=PUT", "+_method=PUT",
		"%20%20_method=x", "_method[]=PUT", "_method%5Bx%5D=PUT", "%20method=PUT&_method=x", "X-HTTP-Method-Override=PUT", "x_http_method=PUT", "X-Method-Override=PUT",
		"$httpMethod=PUT", "%24httpMethod=PUT", "_method[" + strings.Repeat("x", 100) + "]=PUT", strings.Repeat("+", 100) + "_method=PUT",
		"%58%2d%48%54%54%50%2d%4d%65%74%68%6f%64%2d%4f%76%65%72%72%69%64%65=PUT",
		"%58%2d%48%54%54%50%2d%4d%65%74%68%6f%64%2d%4f%76%65%72%72%69%64%65%5b%5d=PUT",
	} {
		if r := accept(t, inTunnel(), get("/x?"+q)); r.Quirks != MethodOverride || string(r.RawQuery) != q {
			t.Errorf("query %s: quirks %q", q, r.Quirks)
		}
	}
	for _, q := range []string{"method=PUT", "my_method=PUT", "_methods=1", "a=_method", "__method=1", strings.Repeat("_method", 20), "[_method]=1", "++", "%20"} {
		if r := accept(t, inTunnel(), get("/x?"+q)); r.Quirks != 0 {
			t.Errorf("query %s: quirks %q", q, r.Quirks)
		}
	}
}

// TestA19NoOverrideAsksForTrace has what no rule can opt in to, since no rule can
// allow the method itself.
func TestA19NoOverrideAsksForTrace(t *testing.T) {
	for _, line := range []string{
		"X-HTTP-Method-Override: TRACE", "x-http-method: trace", "X_Method_Override: Track", "X-Forwarded-Method: GET, TRACE",
		"X-Original-Method: TRACE",
	} {
		deny(t, inTunnel(), head(t, post(line)), 405, ReasonBadMethod)
	}
	for _, q := range []string{"_method=TRACE", "a=b;_method=t%72ace", "_method[]=TRACK", "x-http-method-override=+trace"} {
		deny(t, inTunnel(), get("/x?"+q), 405, ReasonBadMethod)
	}
	for _, line := range []string{"X-Original-URL: /trace", "X-Trace: TRACE", "X-Forwarded-Host: trace.example", "X-Method: TRACE"} {
		accept(t, inTunnel(), head(t, post(line)))
	}
	accept(t, inTunnel(), get("/x?trace=TRACE&method=TRACE&_method=GET&b=TRACE"))
}

func TestU03Upgrades(t *testing.T) {
	const ws = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n"
	for lines, want := range map[string]Upgrade{
		"Connection: Upgrade\nUpgrade: websocket\n" + ws:                                       WebSocket,
		"Connection: keep-alive, upgrade\nUpgrade: WebSocket\n" + ws:                           WebSocket,
		"Upgrade: websocket\n" + ws:                                                            NoUpgrade, // Connection does not name it
		"Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAA\n": NoUpgrade,
		"Connection: Upgrade\nUpgrade: TLS/1.0\n":                                              OtherUpgrade,
		"Connection: Upgrade\nUpgrade: h2c, websocket\n":                                       OtherUpgrade,
		"Connection: Upgrade\nUpgrade: websocket/13\n":                                         OtherUpgrade,
	} {
		r := accept(t, inTunnel(), head(t, post(lines)))
		if r.Upgrade != want {
			t.Errorf("%q: upgrade %d, want %d", lines, r.Upgrade, want)
		}
		got := strings.ToLower(fields(r))
		if strings.Contains(got, "upgrade") || strings.Contains(got, "http2-settings") {
			t.Errorf("%q: forwards %q", lines, got)
		}
		if strings.Contains(lines, ws) && fields(r) != ws {
			t.Errorf("%q: forwards %q, want the handshake's fields", lines, fields(r))
		}
	}
	h := head(t, "GET / HTTP/1.0\nHost: api.example\nConnection: Upgrade\nUpgrade: websocket")
	h.Upgrade = []byte("websocket")
	if r := accept(t, inTunnel(), h); r.Upgrade != NoUpgrade {
		t.Error("HTTP/1.0 switched protocols")
	}
	h = get("/")
	two := http1.Field{Name: []byte("Upgrade"), Value: []byte("h2c")}
	h.Fields = []http1.Field{two, two}
	deny(t, inTunnel(), h, 400, ReasonBadHeader)
}

func TestGRPCIsItsContentType(t *testing.T) {
	for value, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/GRPC;x=y": true, "application/grpc ;x": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "application/json": false, "application/grp": false,
	} {
		if r := accept(t, inTunnel(), head(t, post("Content-Type: "+value))); r.GRPC != want {
			t.Errorf("%s: GRPC is %v", value, r.GRPC)
		}
	}
}

func TestRulesEditFields(t *testing.T) {
	r := accept(t, inTunnel(), head(t, post("A: 1\nX-Api-Key: agent\nB: 2\nx_api_key: agent\nC: 3")))
	r.SetField("X-Api-Key", "rule")
	r.SetField("D", "4")
	r.RemoveField("b")
	r.RemoveField("missing")
	if got, want := fields(r), "A: 1\nX-Api-Key: rule\nC: 3\nD: 4\n"; got != want {
		t.Errorf("edited:\n%swant:\n%s", got, want)
	}
	r.SetField("A", "")
	if got, want := fields(r), "A: \nX-Api-Key: rule\nC: 3\nD: 4\n"; got != want {
		t.Errorf("edited:\n%swant:\n%s", got, want)
	}
	for _, name := range []string{
		"Host", "content-length", "Transfer-Encoding", "Expect", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive",
		"Proxy-Authorization", "HTTP2-Settings", "content_length", "", "a b", "a:", "é",
	} {
		if SettableField(name) == nil {
			t.Errorf("SettableField(%q) is nil", name)
		}
		for what, edit := range map[string]func(){
			"SetField": func() { r.SetField(name, "x") }, "RemoveField": func() { r.RemoveField(name) },
		} {
			if !panics(edit) {
				t.Errorf("%s(%q) did not panic", what, name)
			}
		}
	}
	if !panics(func() { r.SetField("A", "x\r\nHost: evil.example") }) {
		t.Error("SetField took a value with a line break")
	}
	for _, name := range []string{"Authorization", "X-Custom", "User-Agent", "X-Forwarded-Host"} {
		if err := SettableField(name); err != nil {
			t.Errorf("SettableField(%q): %v", name, err)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestCopyToSharesNothing(t *testing.T) {
	h := head(t, "POST /%61%2fb?q=1 HTTP/1.1\nHost: api.example\nA: 1\nTE: trailers")
	r := accept(t, inTunnel(), h)
	r.SetField("B", "2")
	dst := &Request{}
	for range 2 { // the second time into used memory
		r.CopyTo(dst)
	}
	r.CopyTo(r)
	want := fields(r)
	for _, f := range r.Fields {
		clear(f.Name)
		clear(f.Value)
	}
	clear(r.Path)
	clear(r.RawQuery)
	if got := string(dst.Target(nil)); got != "/a%2Fb?q=1" {
		t.Errorf("the copy's target is %q", got)
	}
	if fields(dst) != want || dst.ID() != 1 || !dst.TETrailers || dst.Quirks != EncodedSlash || dst.Method != "POST" || dst.Host != "api.example" {
		t.Errorf("the copy is %+v with %q", dst, fields(dst))
	}
	if err := dst.FromHTTP1(2, inTunnel(), get("/next")); err != nil || string(dst.Path) != "/next" || string(r.Path) == "/next" {
		t.Errorf("a copy cannot be parsed into: %v", err)
	}
	var tunnel, twin Request
	tunnel.FromTunnel(3, Authority{Host: "a.example", Port: 443})
	tunnel.CopyTo(&twin)
	if twin.Path != nil || twin.RawQuery != nil || twin.Scheme != Tunnel || twin.ID() != 3 {
		t.Errorf("a copied tunnel: %+v", &twin)
	}
}

func TestALargeRequestDoesNotStayInMemory(t *testing.T) {
	r := accept(t, inTunnel(), get("/%61"+strings.Repeat("x", 2*maxKept)+"?a=%41"+strings.Repeat("y", 2*maxKept)))
	r.SetField("A", strings.Repeat("z", 2*maxKept))
	r.QueryAmbiguous()
	if err := r.FromHTTP1(2, inTunnel(), get("/")); err != nil {
		t.Fatal(err)
	}
	if s := &r.store; cap(s.arena) > maxKept || cap(s.path) > maxKept || cap(s.query) > maxKept {
		t.Errorf("kept %d, %d and %d bytes", cap(s.arena), cap(s.path), cap(s.query))
	}
}

const ordinary = `POST /v1/chat/completions?trace=1 HTTP/1.1
Host: api.example
User-Agent: OpenAI/Python 1.99.9
Accept: application/json
Accept-Encoding: gzip, deflate, br
Connection: keep-alive
Content-Type: application/json
Authorization: Bearer sk-0123456789abcdef0123456789abcdef
X-Stainless-Lang: python
X-Stainless-Package-Version: 1.99.9
Content-Length: 1024`

func TestOrdinaryRequestsDoNotAllocate(t *testing.T) {
	for name, row := range map[string]struct {
		in  Inbound
		raw string
	}{
		"ordinary":       {inTunnel(), ordinary},
		"escaped path":   {inTunnel(), "GET /a%2db/%c3%a9 HTTP/1.1\nHost: api.example"},
		"explicit port":  {inTunnel(), "GET / HTTP/1.1\nHost: API.example.:443"},
		"other method":   {inTunnel(), "PROPFIND / HTTP/1.1\nHost: api.example"},
		"per-hop fields": {inTunnel(), "GET / HTTP/1.1\nHost: api.example\nConnection: x-a, te\nX-A: 1\nTE: trailers"},
		"trailers":       {inTunnel(), "POST / HTTP/1.1\nHost: api.example\nTransfer-Encoding: chunked\nTrailer: x-a, x-b"},
		"absolute form":  {onProxyPort(), "GET http://a.example/x HTTP/1.1\nHost: a.example"},
	} {
		h := head(t, row.raw)
		var r Request
		var dst Request
		var buf [256]byte
		once := func() {
			if err := r.FromHTTP1(1, row.in, h); err != nil {
				t.Fatal(err)
			}
			r.SetField("X-Api-Key", "from the rule")
			r.RemoveField("Accept")
			r.QueryAmbiguous()
			r.Target(buf[:0])
			r.HostHeader(buf[:0])
			r.CopyTo(&dst)
		}
		once()
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkFromHTTP1(b *testing.B) {
	h := head(b, ordinary)
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if err := r.FromHTTP1(1, inTunnel(), h); err != nil {
			b.Fatal(err)
		}
	}
}
