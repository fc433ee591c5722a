package proxy_test

import (
	"fmt"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// TestT01ToT14OriginsThatCannotBeTrusted asks each for something. The answer is
// 502 with the reason, inside TLS; the origin gets nothing of the request; and
// neither that host nor another is let through uninspected afterwards.
func TestT01ToT14OriginsThatCannotBeTrusted(t *testing.T) {
	reasons := map[string]string{
		"T1": "upstream_cert_expired", "T2": "upstream_cert_not_yet_valid", "T3": "upstream_cert_name", "T4": "upstream_cert_self_signed",
		"T5": "upstream_cert_unknown_root", "T6": "upstream_cert_unknown_root", "T7": "upstream_cert_no_san", "T8": "upstream_cert_weak_signature",
		"T9": "upstream_cert_weak_key", "T10": "upstream_cert_usage", "T11": "upstream_cert_too_large", "T12": "upstream_cert_too_large",
		"T13": "upstream_tls_version", "T14": "upstream_client_cert_wanted",
	}
	root := enginetest.NewRoot(t, "origin root of the rows")
	rows := root.BadTLS(t, "*.bad.test")
	hosts := map[string]enginetest.Host{"good.test": {}}
	for i, row := range rows {
		hosts[fmt.Sprintf("row%d.bad.test", i)] = enginetest.Host{TLS: row.TLS}
	}
	e := attacked(t, enginetest.Options{Hosts: hosts, Root: root, Policy: "- name: all\n  {{to \"*.bad.test\" \"good.test\"}}\n"})
	h2 := e.ClientH2(t)
	seen := map[string]bool{}
	for i, row := range rows {
		seen[row.Row] = true
		name, reason := fmt.Sprintf("row%d.bad.test", i), reasons[row.Row]
		t.Run(row.Row+" "+row.Name, func(t *testing.T) {
			w := way{"in a tunnel", name, e, "", func(t *testing.T) *enginetest.Conn {
				t.Helper()
				return e.RawTunnel(t, name, nil)
			}}
			c := w.dial(t)
			c.Send(w.raw("POST {at}/secret HTTP/1.1\r\nHost: {host}\r\nAuthorization: secret\r\nContent-Length: 6\r\n\r\nsecret"))
			r := c.Reply("POST")
			refused(t, "the request", r, 502, reason)
			if r.Header.Get("X-Aegrail-Decision") != "error" {
				t.Errorf("the decision is called %q", r.Header.Get("X-Aegrail-Decision"))
			}
			recorded(t, e, enginetest.Fields{"event": "egress_allowed", "phase": "decision", "host": name, "path": "/secret"})
			recorded(t, e, enginetest.Fields{"event": "egress_error", "phase": "complete", "host": name, "path": "/secret", "reason": reason, "status_code": 502})
			if r, err := e.Try(t, h2, "POST", name, "/h2", "a secret"); err != nil || r.Status != 502 || r.Reason() != reason {
				t.Errorf("over HTTP/2: %+v, %v", r, err)
			}
			// The next connection to it is ours again, and not the origin's own.
			issuer := w.dial(t).State().PeerCertificates[0].Issuer.String()
			if issuer != e.CA.Certificate().Subject.String() {
				t.Errorf("afterwards the certificate is issued by %s", issuer)
			}
			if got := e.Origin(name).AllBytes(); len(got) > 0 {
				t.Errorf("the origin got %q", got)
			}
			inspected(t, e, "good.test")
		})
	}
	for row := range reasons {
		if !seen[row] {
			t.Errorf("the harness has no origin for %s", row)
		}
	}
}

func TestT15CutWithoutCloseNotify(t *testing.T) {
	rows := []struct {
		what, answer string
		status       int // 0: an answer that must not look whole
		reason       string
	}{
		{"before the answer", "", 502, "upstream_closed"},
		{"inside the head", "HTTP/1.1 200 OK\r\nContent-", 502, "upstream_truncated"},
		{"behind the head of a body of known length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0, "upstream_truncated"},
		{"inside a body of known length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 0, "upstream_truncated"},
		{"inside chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0, "upstream_truncated"},
		{"in a body that ends with the connection", "HTTP/1.1 200 OK\r\n\r\nabc", 0, "upstream_truncated"},
		{"in an empty body that ends with the connection", "HTTP/1.1 200 OK\r\n\r\n", 0, "upstream_truncated"},
	}
	raw := map[string]string{}
	for i, row := range rows {
		raw[numbered(i)] = row.answer
	}
	host := answers(raw, false)
	answer := host.Answer
	host.Answer = func(c *enginetest.OriginConn, r enginetest.Seen) {
		answer(c, r)
		if _, cut := raw[r.Path()]; cut {
			c.Cut()
		}
	}
	e := attacked(t, enginetest.Options{Hosts: map[string]enginetest.Host{"allowed.test": host, "plain.test": {Plain: true}}})
	w := tunnelWay(e)
	for i, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			path := numbered(i)
			c := w.dial(t)
			c.Send(w.raw("GET {at}" + path + " HTTP/1.1\r\nHost: {host}\r\n\r\n"))
			r, err := c.TryReply("GET")
			switch {
			case row.status != 0 && (err != nil || r.Status != row.status || r.Reason() != row.reason):
				t.Errorf("got %+v, %v; want %d %q", r, err, row.status, row.reason)
			case row.status == 0 && err == nil && r.Status != 502:
				t.Errorf("the answer looks whole: %d %q", r.Status, r.Body)
			}
			recorded(t, e, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": path, "reason": row.reason})
			w.wantUnused(t, path)
		})
	}
}
