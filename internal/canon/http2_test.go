package canon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

func TestHTTP2RequestInOneForm(t *testing.T) {
	o := serve(t)
	r := o.accept(":path /a%2db/%c3%a9?q=1", "x-b 2", "te trailers", "cookie a=1", "x-a 1", "cookie b=2", "x-b 1", "trailer x-sum", "proxy-authorization Basic x")
	if got, want := fields(r), "Cookie: a=1; b=2\nX-A: 1\nX-B: 2\nX-B: 1\n"; got != want {
		t.Errorf("forwarded:\n%swant:\n%s", got, want)
	}
	if announced(r) != "X-Sum" {
		t.Errorf("announced trailers %q", r.Trailers)
	}
	if !r.HTTP2 || r.Scheme != HTTPS || r.Method != "GET" || !r.TETrailers || r.ID() != 1 || r.Framing != http1.NoBody || r.ExpectContinue {
		t.Errorf("%+v", r)
	}
	if got := string(r.Target(nil)); got != "/a-b/%C3%A9?q=1" {
		t.Errorf("target %q", got)
	}
	r = o.accept(":method POST", ":path /x", "content-type application/grpc+proto", "content-length 0", ":authority API.example.:443")
	if !r.GRPC || r.Framing != http1.Length || r.Length != 0 || r.Host != "api.example" {
		t.Errorf("%+v", r)
	}
}

func TestHTTP2BodiesAndExpect(t *testing.T) {
	o := serve(t)
	for _, row := range []struct {
		fields  []string
		framing http1.Framing
		length  int64
	}{
		{[]string{":method POST"}, http1.Chunked, -1},
		{[]string{":method POST", "content-length 5"}, http1.Length, 5},
		{[]string{":method POST", "content-length 5", "expect 100-continue"}, http1.Length, 5},
	} {
		got := o.read(false, row.fields...)
		if got.err != nil || got.r.Framing != row.framing || got.r.Length != row.length || got.r.ExpectContinue || fields(got.r) != "" {
			t.Errorf("%q: %+v, %v", row.fields, got.r, got.err)
		}
	}
	got := o.read(false, ":method POST", "expect 200-ok")
	o.refused(got, 417, ReasonBadExpect, nil)
}

func TestH01PathIsOriginForm(t *testing.T) {
	o := serve(t)
	o.deny(400, ReasonBadTarget, ":path http://evil/x")
	o.deny(400, ReasonBadTarget, ":path https://api.example/")
	o.deny(400, ReasonBadTarget, ":path *")
	if r := o.accept(":method OPTIONS", ":path *"); string(r.Path) != "*" {
		t.Errorf("OPTIONS *: %q", r.Path)
	}
	o.reset(":path x")
	o.reset("-:path")
	o.reset(":path ")
	o.deny(431, ReasonHeadTooLarge, ":path /"+strings.Repeat("x", 16<<10)+"?"+strings.Repeat("x", 16<<10))
}

func TestH02SpaceAndFragmentInPath(t *testing.T) {
	o := serve(t)
	o.deny(400, ReasonBadPath, ":path /a b")
	o.deny(400, ReasonBadPath, ":path /a#b")
	o.deny(400, ReasonBadQuery, ":path /a?b c")
	o.deny(400, ReasonBadQuery, ":path /a?b#c")
	o.deny(400, ReasonBadPath, ":path /é")
	o.deny(400, ReasonAmbiguousPath, ":path /a/../b")
	o.deny(400, ReasonAmbiguousPath, `:path /a\b`)
	o.deny(400, ReasonBadQuery, ":path /a?%zz")
	o.reset(":path /%zz")
}

func TestH03AuthorityAndHost(t *testing.T) {
	o := serve(t)
	o.accept("host api.example")
	o.deny(421, ReasonNameMismatch, "host evil.example")
	o.deny(421, ReasonNameMismatch, "host ")
	o.deny(421, ReasonNameMismatch, "host api.example:443") // the same name, but two spellings of it
	o.deny(400, ReasonBadHost, "host api.example", "host evil.example")
	o.deny(400, ReasonBadHost, "host api.example", "host api.example")
	o.deny(421, ReasonNameMismatch, "-:authority", "host evil.example")
	o.accept("-:authority", "host api.example") // RFC 9113 section 8.3.1 allows it to gateways
}

func TestH04NoAuthority(t *testing.T) {
	o := serve(t)
	o.deny(400, ReasonBadHost, "-:authority")
	o.deny(400, ReasonBadHost, ":authority ")
	o.deny(400, ReasonBadHost, "-:authority", "host ")
}

func TestH05AuthorityThatIsNone(t *testing.T) {
	o := serve(t)
	for _, a := range []string{"api.example/../x", "api.example?x", "api.example#x", `api.example\x`, "api.example x", "api.example,evil.example"} {
		o.deny(400, ReasonBadHost, ":authority "+a)
	}
	o.deny(400, ReasonBadPort, ":authority api.example:443/x")
	o.deny(400, ReasonBadPort, ":authority api.example:0443")
	o.reset(":authority user@api.example")
}

func TestH06SchemeIsTheConnections(t *testing.T) {
	o := serve(t)
	o.deny(400, ReasonBadScheme, ":scheme http")
	o.reset(":scheme ftp")
	o.reset(":scheme HTTPS")
	o.reset("-:scheme")
}

func TestH07MethodsInHTTP2(t *testing.T) {
	o := serve(t)
	o.deny(400, ReasonBadMethod, ":method get")
	o.deny(400, ReasonBadMethod, ":method GET /x")
	o.deny(400, ReasonBadMethod, ":method G,T")
	o.deny(405, ReasonBadMethod, ":method TRACE")
	o.deny(405, ReasonBadMethod, ":method TRACK")
	o.reset(":method ")
}

func TestH08ContentLengths(t *testing.T) {
	o := serve(t)
	for _, row := range []struct {
		reason string
		fields []string
	}{
		{ReasonBadFraming, []string{"content-length 3", "content-length 4"}},
		{ReasonBadFraming, []string{"content-length 3", "content-length 3"}},
		{ReasonBadFraming, []string{"content-length 03"}},
		{ReasonBadFraming, []string{"content-length +3"}},
		{ReasonBadFraming, []string{"content-length 3,3"}},
		{ReasonBadFraming, []string{"content-length "}},
		{ReasonBadFraming, []string{"content-length 0x3"}},
		{ReasonBadFraming, []string{"content-length 99999999999999999999"}},
	} {
		o.refused(o.read(false, append(row.fields, ":method POST")...), 400, row.reason, row.fields)
	}
	o.deny(400, ReasonBadFraming, "content-length 3") // and END_STREAM
}

func TestA03EveryStreamHasTheConnectionsName(t *testing.T) {
	o := serve(t)
	o.accept()
	o.deny(421, ReasonNameMismatch, ":authority evil.example")
	o.deny(421, ReasonNameMismatch, ":authority api.example:8443")
	o.accept()
}

func TestA16ConnectInHTTP2(t *testing.T) {
	o := serve(t)
	o.deny(405, ReasonNestedConnect, ":method CONNECT", "-:scheme", "-:path")
	o.deny(405, ReasonNestedConnect, ":method CONNECT", "-:scheme", "-:path", ":authority evil.example:22")
	o.reset(":method CONNECT")
	o.reset(":method CONNECT", ":protocol websocket")
	o.reset(":protocol websocket")

	// With GODEBUG=http2xconnect=1 the server hands this on.
	h := request()
	h.Header[":protocol"] = []string{"websocket"}
	refuseHTTP2(t, "extended CONNECT", inTunnel(), h, 405, ReasonNestedConnect)
}

func TestA19OverridesInHTTP2(t *testing.T) {
	o := serve(t)
	if r := o.accept("x-http-method-override DELETE"); r.Quirks != MethodOverride {
		t.Errorf("quirks %q", r.Quirks)
	}
	if r := o.accept(":path /x?_method=DELETE"); r.Quirks != MethodOverride {
		t.Errorf("quirks %q", r.Quirks)
	}
	o.deny(405, ReasonBadMethod, "x-http-method-override TRACE")
	o.deny(405, ReasonBadMethod, ":path /x?_method=TRACE")
}

func TestHTTP2FieldsThatTheServerLetsThrough(t *testing.T) {
	o := serve(t)
	o.deny(400, ReasonBadHeader, "content-type a/b", "content-type c/d")
	o.deny(400, ReasonBadHeader, "authorization a", "authorization b")
	o.deny(400, ReasonBadHeader, "content_length 3")
	o.deny(400, ReasonBadHeader, "x-a  in front")
	o.deny(400, ReasonBadHeader, "x-a behind\t")
	o.deny(400, ReasonBadTrailer, "trailer authorization")
	for _, name := range notTrailers {
		switch name {
		case "Transfer-Encoding", "Trailer", "Content-Length": // the server itself forgets these
			continue
		}
		o.deny(400, ReasonBadTrailer, "trailer x-a, "+strings.ToLower(name))
	}
	o.deny(400, ReasonBadTrailer, "trailer x-a, host")
	many := make([]string, http1.MaxFields+1)
	for i := range many {
		many[i] = fmt.Sprintf("x-%d 1", i)
	}
	o.deny(431, ReasonTooManyFields, many...)
	o.accept(many[1:]...)
	for _, f := range []string{"connection close", "upgrade websocket", "transfer-encoding chunked", "keep-alive 1", "te gzip"} {
		if got := o.answer(o.send(true, f)); got != "400" {
			t.Errorf("%s: %s, want the server's own 400", f, got)
		}
	}
	o.accept("http2-settings AAMAAABkAAQCAAAAAAIAAAAA")
}

// request is what the server makes of a GET. The tests below change what it
// would never make, since those branches guard against another server's ways.
func request() *http.Request {
	return &http.Request{
		Method: "GET", Host: "api.example", RequestURI: "/", ProtoMajor: 2, TLS: &tls.ConnectionState{},
		URL:    &url.URL{Scheme: "https", Path: "/"},
		Header: http.Header{},
	}
}

func refuseHTTP2(t *testing.T, what string, in Inbound, h *http.Request, status int, reason string) {
	t.Helper()
	var r Request
	checkRefusal(t, what, r.FromHTTP2(1, in, h), status, reason)
	if r.Scheme != NoScheme || r.Host != "" {
		t.Errorf("%s: refused, but left %+v", what, &r)
	}
}

func TestExposeSchemeNeedsAnHTTP2Server(t *testing.T) {
	s := &http.Server{TLSConfig: &tls.Config{NextProtos: []string{"http/1.1"}}}
	if err := ExposeScheme(s); err == nil || !strings.Contains(err.Error(), "NextProtos") {
		t.Errorf("a server without h2: %v", err)
	}
	s = new(http.Server)
	s.Close()
	if err := ExposeScheme(s); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("a closed server: %v", err)
	}
	if ctx := (schemeHandler{}).BaseContext(); ctx != context.Background() {
		t.Errorf("no context: %v", ctx)
	}
	unprepared := request()
	unprepared.URL.Scheme = ""
	refuseHTTP2(t, "a server that was not prepared", inTunnel(), unprepared, 400, ReasonBadScheme)
}

func TestHTTP2OnlyWhereItWasAgreed(t *testing.T) {
	var r Request
	if err := r.FromHTTP2(1, inTunnel(), request()); err != nil {
		t.Fatal(err)
	}
	one := request()
	one.ProtoMajor = 1
	refuseHTTP2(t, "an HTTP/1 request", inTunnel(), one, 400, ReasonBadTarget)
	a := inTunnel().Authority
	refuseHTTP2(t, "a connection of no kind", Inbound{Scheme: HTTPS, Authority: a}, request(), 400, ReasonBadTarget)
	refuseHTTP2(t, "the proxy port", Inbound{Kind: intake.Plain, Scheme: HTTP}, request(), 400, ReasonBadTarget)
	refuseHTTP2(t, "prior knowledge", Inbound{Kind: intake.Connect, Scheme: HTTP, Authority: a}, request(), 400, ReasonBadScheme)
	refuseHTTP2(t, "no agreed name", Inbound{Kind: intake.Connect, Scheme: HTTPS}, request(), 421, ReasonNameMismatch)

	for what, change := range map[string]func(*http.Request){
		"a field name with a space":  func(h *http.Request) { h.Header["A B"] = []string{"1"} },
		"a field value with a break": func(h *http.Request) { h.Header["A"] = []string{"1\r\nB: 2"} },
		"Connection":                 func(h *http.Request) { h.Header["Connection"] = []string{"close"} },
		"Upgrade":                    func(h *http.Request) { h.Header["Upgrade"] = []string{"websocket"} },
	} {
		h := request()
		change(h)
		refuseHTTP2(t, what, inTunnel(), h, 400, ReasonBadHeader)
	}
	for what, change := range map[string]func(*http.Request){
		"Transfer-Encoding":             func(h *http.Request) { h.Header["Transfer-Encoding"] = []string{"chunked"} },
		"a length without the field":    func(h *http.Request) { h.ContentLength = 3 },
		"a length unlike the field":     func(h *http.Request) { h.ContentLength = 3; h.Header["Content-Length"] = []string{"4"} },
		"a length where there was none": func(h *http.Request) { h.ContentLength = -1; h.Header["Content-Length"] = []string{"4"} },
	} {
		h := request()
		change(h)
		refuseHTTP2(t, what, inTunnel(), h, 400, ReasonBadFraming)
	}
}

func BenchmarkFromHTTP2(b *testing.B) {
	h := request()
	h.RequestURI = "/v1/chat/completions?trace=1"
	for _, f := range []string{"User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Authorization", "X-Stainless-Lang"} {
		h.Header[f] = []string{"some/value; of=an ordinary length"}
	}
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if err := r.FromHTTP2(1, inTunnel(), h); err != nil {
			b.Fatal(err)
		}
	}
}
