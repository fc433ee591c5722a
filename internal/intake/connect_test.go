package intake

import (
	"errors"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

func head(t *testing.T, text string) *http1.RequestHead {
	t.Helper()
	var h http1.RequestHead
	if err := http1.NewReader(strings.NewReader(text)).ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	return &h
}

func TestConnectTakesTheTarget(t *testing.T) {
	for name, text := range map[string]string{
		"curl's":             "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Bearer t\r\n\r\n",
		"Python's, HTTP/1.0": "CONNECT api.test:443 HTTP/1.0\r\nProxy-Authorization: Bearer t\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := head(t, text)
			var f Flow
			if !IsConnect(h) {
				t.Fatal("not seen as a CONNECT")
			}
			if err := f.Connect(h); err != nil {
				t.Fatal(err)
			}
			if f.Kind != Connect || f.Target != "api.test:443" || f.ProxyAuthorization != "Bearer t" {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestConnectRefusesWhatCouldBeReadTwice(t *testing.T) {
	for name, c := range map[string]struct{ text, reason string }{
		"a length":            {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n", "bad_framing"},
		"a length of none":    {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", "bad_framing"},
		"chunks":              {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_framing"},
		"an expectation":      {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n\r\n", "bad_expect"},
		"two credentials":     {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: a\r\nProxy-Authorization: b\r\n\r\n", "bad_header"},
		"an empty credential": {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization:\r\n\r\n", "bad_header"},
	} {
		t.Run(name, func(t *testing.T) {
			var f Flow
			err := f.Connect(head(t, c.text))
			var e *Error
			if !errors.As(err, &e) || e.Reason != c.reason || e.Status == 0 {
				t.Errorf("got %v, want %s", err, c.reason)
			}
		})
	}
}

func TestKindsHaveWords(t *testing.T) {
	for k, want := range map[Kind]string{Unknown: "", Connect: "connect", Plain: "plain", Transparent: "transparent", 99: ""} {
		if k.String() != want {
			t.Errorf("%d is %q, want %q", k, k.String(), want)
		}
	}
}
