package canon

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// inTunnel is a connection to https://api.example.
func inTunnel() Inbound {
	return Inbound{Kind: intake.Connect, Scheme: HTTPS, Authority: Authority{Host: "api.example", Port: 443}}
}

func onProxyPort() Inbound { return Inbound{Kind: intake.Plain, Scheme: HTTP} }

// head reads raw as a client sent it, "\n" standing for CRLF.
func head(t testing.TB, raw string) *http1.RequestHead {
	t.Helper()
	raw = strings.ReplaceAll(raw, "\n", "\r\n") + "\r\n\r\n"
	var h http1.RequestHead
	if err := http1.NewReader(strings.NewReader(raw)).ReadRequest(&h); err != nil {
		t.Fatalf("http1 refused %q: %v", raw, err)
	}
	return &h
}

// get is a head of a GET of the target in the tunnel.
func get(target string) *http1.RequestHead {
	return &http1.RequestHead{Method: []byte("GET"), Target: []byte(target), Minor: 1, Host: []byte("api.example")}
}

func accept(t testing.TB, in Inbound, h *http1.RequestHead) *Request {
	t.Helper()
	r := new(Request)
	if err := r.FromHTTP1(1, in, h); err != nil {
		t.Fatalf("%s %s was refused: %v", h.Method, h.Target, err)
	}
	if r.Scheme != in.Scheme || r.Host == "" || r.Port == 0 || r.ID() != 1 {
		t.Fatalf("%s %s: accepted with scheme %v, authority %v, id %d", h.Method, h.Target, r.Scheme, r.Authority, r.ID())
	}
	return r
}

// deny checks that the request is refused with the reason and leaves nothing
// that could be allowed.
func deny(t testing.TB, in Inbound, h *http1.RequestHead, status int, reason string) {
	t.Helper()
	r := &Request{Scheme: HTTPS, Authority: Authority{Host: "left.over", Port: 443}, Path: []byte("/left")}
	err := r.FromHTTP1(1, in, h)
	checkRefusal(t, string(h.Method)+" "+string(h.Target)+" Host: "+string(h.Host), err, status, reason)
	if r.Scheme != NoScheme || r.Host != "" || r.Path != nil || r.Method != "" || len(r.Fields) != 0 {
		t.Errorf("%s %s: refused, but left %+v", h.Method, h.Target, r)
	}
}

func checkRefusal(t testing.TB, what string, err error, status int, reason string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%q: got %v, want a refusal", what, err)
		return
	}
	if e.Reason != reason || e.Status != status {
		t.Errorf("%q: refused with %d %s (%s), want %d %s", what, e.Status, e.Reason, e.Detail, status, reason)
	}
	if !errors.Is(err, ErrAmbiguous) || !strings.HasPrefix(err.Error(), reason+": ") {
		t.Errorf("%q: error %v is no ErrAmbiguous with its reason first", what, err)
	}
	for _, c := range []byte(e.Detail) {
		if c < ' ' || c > '~' {
			t.Errorf("%q: detail %q is not printable ASCII", what, e.Detail)
			break
		}
	}
	if len(e.Detail) > 1024 {
		t.Errorf("%q: a detail of %d bytes", what[:40], len(e.Detail))
	}
}

func TestTheWordsOfTheLog(t *testing.T) {
	for s, want := range map[Scheme]string{NoScheme: "", HTTPS: "https", HTTP: "http", Tunnel: "tunnel", 9: ""} {
		if s.String() != want {
			t.Errorf("Scheme(%d) = %q, want %q", s, s, want)
		}
	}
	if got := (EncodedSlash | Semicolon | DoubleSlash | MethodOverride).String(); got != "encodedSlash,semicolon,doubleSlash,methodOverride" {
		t.Errorf("all quirks: %q", got)
	}
	if got := Quirks(0).String(); got != "" {
		t.Errorf("no quirks: %q", got)
	}
}

func TestAnErrorQuotesAndCapsTheAgentsBytes(t *testing.T) {
	_, err := ParseAuthority(strings.Repeat("\x1b\u2028é", 5000), 443)
	checkRefusal(t, "a long host of controls", err, 400, ReasonBadHost)
	_, err = ParseAuthority("user:hunter2@api.example", 443)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("userinfo: %v", err)
	}
}

func TestTheZeroRequestIsAllowedNowhere(t *testing.T) {
	var r Request
	if r.Scheme != NoScheme || r.Host != "" || r.Path != nil || r.ID() != 0 {
		t.Errorf("zero Request: %+v", &r)
	}
}

func TestFromTunnel(t *testing.T) {
	var r Request
	a := Authority{Host: "pinned.example", Port: 8443}
	r.FromTunnel(7, a)
	if r.Scheme != Tunnel || r.Method != "CONNECT" || r.Authority != a || r.ID() != 7 || r.Path != nil {
		t.Errorf("%+v", &r)
	}
	if got := string(r.HostHeader(nil)); got != "pinned.example:8443" {
		t.Errorf("HostHeader: %q", got)
	}
	r.FromTunnel(8, Authority{})
	if r.Scheme != NoScheme {
		t.Error("a tunnel to nowhere has a scheme")
	}
	r.FromTunnel(9, Authority{Host: "pinned.example"})
	if r.Scheme != NoScheme {
		t.Error("a tunnel without a port has a scheme")
	}
}

func TestHostHeader(t *testing.T) {
	for _, row := range []struct {
		scheme Scheme
		a      Authority
		want   string
	}{
		{HTTPS, Authority{Host: "a.example", Port: 443}, "a.example"},
		{HTTPS, Authority{Host: "a.example", Port: 80}, "a.example:80"},
		{HTTP, Authority{Host: "a.example", Port: 80}, "a.example"},
		{HTTPS, Authority{Host: "::1", Addr: netip.MustParseAddr("::1"), Port: 443}, "[::1]"},
		{HTTPS, Authority{Host: "::1", Addr: netip.MustParseAddr("::1"), Port: 8443}, "[::1]:8443"},
		{HTTPS, Authority{Host: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1"), Port: 443}, "192.0.2.1"},
	} {
		r := Request{Scheme: row.scheme, Authority: row.a}
		if got := string(r.HostHeader([]byte("x"))); got != "x"+row.want {
			t.Errorf("%v: %q, want %q", row.a, got, "x"+row.want)
		}
	}
}
