package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// The promises of internal/README.md, each kept by a whole engine between real
// clients and real origins. What every test of the harness checks, that the log
// verifies and that the origins saw exactly what it says, is checked in each.

// readPolicy is the harness's policy for one host alone.
const readPolicy = `
- name: read
  {{to "allowed.test"}}
  methods: [GET, HEAD, POST, PUT]
  paths: ["/**"]
`

// refused fails the test unless r is a refusal with that status and reason.
func refused(t *testing.T, what string, r *enginetest.Reply, status int, reason string) {
	t.Helper()
	if r.Status != status || r.Reason() != reason {
		t.Errorf("%s: %d %q, want %d %q\n%s", what, r.Status, r.Reason(), status, reason, r.Body)
	}
}

// untouched fails the test if anything arrived at the origins.
func untouched(t *testing.T, e *enginetest.Engine, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		if n := e.Origin(host).Connections(); n != 0 {
			t.Errorf("%d connections arrived at %s: %q", n, host, e.Origin(host).Requests())
		}
	}
}

// notAsked fails the test if a name was looked up.
func notAsked(t *testing.T, e *enginetest.Engine, hosts ...string) {
	t.Helper()
	for _, asked := range e.Resolver.Asked() {
		for _, host := range hosts {
			if asked == host {
				t.Errorf("%s was looked up: a lookup is a message", host)
			}
		}
	}
}

func TestPromise01DenyIsTheZeroValue(t *testing.T) {
	t.Run("no policy denies", func(t *testing.T) {
		e := enginetest.Start(t, &enginetest.Options{Proxy: func(c *proxy.Config) { c.Policy = new(proxy.PolicySource) }})
		_, err := e.Try(t, e.Client(t), "GET", "allowed.test", "/", "")
		if err == nil || !strings.Contains(err.Error(), "no_policy_for_agent") {
			t.Errorf("got %v, want a CONNECT refused with no_policy_for_agent", err)
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "no_policy_for_agent", "host": "allowed.test"})
		untouched(t, e, "allowed.test")
		notAsked(t, e, "allowed.test")
	})
	t.Run("an empty policy denies", func(t *testing.T) {
		e := enginetest.Start(t, &enginetest.Options{
			Policy: "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: empty}\nspec: {}\n",
		})
		if _, err := e.Try(t, e.Client(t), "GET", "allowed.test", "/", ""); err == nil {
			t.Error("a request went through")
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "host": "allowed.test"})
		untouched(t, e, "allowed.test")
	})
	t.Run("a policy for other agents denies", func(t *testing.T) {
		e := enginetest.Start(t, &enginetest.Options{Policy: `
apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: theirs}
spec:
  agents: {namespaces: [support]}
  rules:
    - name: all
      {{to "allowed.test"}}
`})
		if _, err := e.Try(t, e.Client(t), "GET", "allowed.test", "/", ""); err == nil {
			t.Error("a request went through")
		}
		untouched(t, e, "allowed.test")
	})
	t.Run("a zero verdict denies", func(t *testing.T) {
		if (policy.Decision{}).Verdict != policy.Deny || policy.Verdict(0) != policy.Deny {
			t.Error("the zero verdict is not Deny")
		}
		var none *policy.Set
		if _, ok := permitted(none); ok {
			t.Error("a nil set allows a host")
		}
	})
	t.Run("a nil dependency is refused at construction", nilDependencies)
	t.Run("a zero guard covers nothing", zeroGuards)
}

func permitted(s *policy.Set) (string, bool) {
	v := s.For(identity.Principal{AgentIdentity: "anybody"}).Host(canon.Authority{Host: "allowed.test", Port: 443})
	return string(v.Reason), v.Possible || v.Passthrough
}

func nilDependencies(t *testing.T) {
	var good proxy.Config
	enginetest.Start(t, &enginetest.Options{Proxy: func(c *proxy.Config) { good = *c }})
	needed := 0
	for i := range reflect.TypeOf(good).NumField() {
		field := reflect.TypeOf(good).Field(i)
		if k := field.Type.Kind(); k != reflect.Pointer && k != reflect.Func || field.Name == "Now" {
			continue
		}
		needed++
		bad := good
		reflect.ValueOf(&bad).Elem().Field(i).SetZero()
		if _, err := proxy.New(bad); err == nil || !strings.Contains(err.Error(), field.Name) {
			t.Errorf("without %s: %v", field.Name, err)
		}
	}
	if needed < 8 {
		t.Errorf("only %d dependencies were tried", needed)
	}
}

// zeroGuards sends with a Permit and a Receipt that nobody gave.
func zeroGuards(t *testing.T) {
	e := enginetest.Start(t, nil)
	var req canon.Request
	req.FromTunnel(1, canon.Authority{Host: "allowed.test", Port: e.Origin("allowed.test").Addr.Port()})
	ctx := context.Background()
	var up *upstream.Error
	if _, err := e.Upstream.Send(ctx, policy.Permit{}, audit.Receipt{}, &req, &upstream.SendOptions{}); !errors.As(err, &up) {
		t.Errorf("Send with zero guards: %v", err)
	}
	if _, err := e.Upstream.Dial(ctx, policy.Permit{}, audit.Receipt{}, &req); !errors.As(err, &up) {
		t.Errorf("Dial with zero guards: %v", err)
	}
	untouched(t, e, "allowed.test")
	notAsked(t, e, "allowed.test")
}

func TestPromise02NothingLeavesUnrecorded(t *testing.T) {
	t.Run("the decision is in the log before the name is resolved and before a byte is sent", recordedFirst)
	t.Run("a log that takes nothing means 503 and silence", brokenLog)
	t.Run("a completion that cannot be written ends the answer", brokenCompletion)
	t.Run("what never becomes a request is recorded", neverARequest)
}

func recordedFirst(t *testing.T) {
	decision := enginetest.Fields{
		"event": "egress_allowed", "phase": "decision", "host": "allowed.test", "method": "PUT", "path": "/thing", "rule": "read",
	}
	atLookup, atArrival := -1, -1
	var e *enginetest.Engine
	e = enginetest.Start(t, &enginetest.Options{
		Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
			atArrival = len(e.Find(t, decision))
			c.Reply(200, "")
		}}},
		Policy: readPolicy,
	})
	addr := e.Origin("allowed.test").Addr.Addr()
	e.Resolver.SetFunc("allowed.test", func(int) []netip.Addr {
		atLookup = len(e.Find(t, decision))
		return []netip.Addr{addr}
	})
	if r := e.Do(t, e.Client(t), "PUT", "allowed.test", "/thing?secret=1", "body"); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if atLookup != 1 || atArrival != 1 {
		t.Errorf("decisions in the log when the name was looked up: %d, when the request arrived: %d; want 1 and 1", atLookup, atArrival)
	}
	end := e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "status_code": 200, "request_bytes": 4})
	if strings.Contains(end.Line, "secret=1") {
		t.Error("the log has a query value")
	}
}

func brokenLog(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{BreakableLog: true})
	client := e.Client(t)
	if r := e.Do(t, client, "GET", "allowed.test", "/before", ""); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	e.BreakLog(&os.PathError{Op: "write", Path: "/var/log/secret.jsonl", Err: syscall.ENOSPC})
	lost := e.Do(t, client, "GET", "allowed.test", "/lost", "")
	refused(t, "with a full disk", lost, 503, "audit_unavailable")
	if strings.Contains(lost.Body, "secret") {
		t.Errorf("the agent is told where the log is: %s", lost.Body)
	}
	refused(t, "a denial with a full disk", e.Do(t, client, "DELETE", "allowed.test", "/lost", ""), 503, "audit_unavailable")
	refused(t, "another host with a full disk", e.Do(t, client, "POST", "api.openai.com", "/v1/chat/completions", "{}"), 503, "audit_unavailable")
	if e.Audit.Err() == nil {
		t.Error("readiness does not know")
	}
	if n := len(e.Origin("allowed.test").Requests()); n != 1 {
		t.Errorf("%d requests arrived, want the one before the disk was full", n)
	}
	untouched(t, e, "api.openai.com")
	notAsked(t, e, "api.openai.com")
	e.BreakLog(nil)
	if !enginetest.Eventually(func() bool { return e.Do(t, client, "GET", "allowed.test", "/after", "").Status == 200 }) {
		t.Error("with room again, requests are still refused")
	}
}

// brokenCompletion fills the disk while the origin thinks.
func brokenCompletion(t *testing.T) {
	const answer = "the whole answer"
	var e *enginetest.Engine
	e = enginetest.Start(t, &enginetest.Options{
		BreakableLog: true,
		Policy:       readPolicy,
		Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
			e.BreakLog(syscall.ENOSPC)
			c.Reply(200, answer)
		}}},
		Unmatched: true, // that the completion is missing is the point
	})
	r, err := e.Try(t, e.Client(t), "GET", "allowed.test", "/", "")
	if err == nil && (r.Status == 200 || strings.Contains(r.Body, answer)) {
		t.Errorf("the answer was given without its record: %d %q", r.Status, r.Body)
	}
	e.BreakLog(nil)
}

// neverARequest sends what is refused before there is anything to judge.
func neverARequest(t *testing.T) {
	e := enginetest.Start(t, nil)
	host := e.Authority("allowed.test")
	inTunnel := func(raw string) func() {
		return func() { e.RawTunnel(t, "allowed.test", nil).Send(raw) }
	}
	atProxy := func(raw string) func() {
		return func() { e.RawProxy(t).Send(raw) }
	}
	for _, row := range []struct {
		what string
		send func()
		want enginetest.Fields
	}{
		{"two lengths", inTunnel("POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
			enginetest.Fields{"reason": "bad_framing", "host": "allowed.test"}},
		{"no HTTP at all", inTunnel("\x00\x01\x02 what\r\n\r\n"), enginetest.Fields{"reason": "bad_request_line", "host": "allowed.test"}},
		{"no TLS in the tunnel", func() { e.RawConnect(t, "allowed.test").Send("SSH-2.0-x\r\n") }, enginetest.Fields{"reason": "not_tls"}},
		{"a handshake of noise", func() {
			e.RawConnect(t, "allowed.test").Send("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
		}, enginetest.Fields{"reason": "bad_client_hello"}},
		{"another name", func() {
			_ = e.RawConnect(t, "allowed.test").StartTLS("allowed.test", &enginetest.TunnelOptions{ServerName: "other.test"})
		}, enginetest.Fields{"reason": "name_mismatch", "sni": "other.test"}},
		{"a CONNECT without a port", atProxy("CONNECT allowed.test HTTP/1.1\r\nHost: allowed.test\r\n\r\n"), enginetest.Fields{"reason": "bad_port"}},
		{"origin-form at the proxy port", atProxy("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"), enginetest.Fields{"reason": "bad_target"}},
		{"a head without an end", atProxy("GET http://allowed.test/ HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"), enginetest.Fields{"reason": "bad_header"}},
	} {
		before := len(e.Records(t))
		row.send()
		if !enginetest.Eventually(func() bool { return len(e.Find(t, row.want)) > 0 }) {
			t.Errorf("%s: no record with %s; the last are %q", row.what, row.want, lines(e.Records(t)[before:]))
		}
	}
	untouched(t, e, "allowed.test", "denied.test")
}

func lines(records []enginetest.Record) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.Line)
	}
	return all
}

func TestPromise03OneReading(t *testing.T) {
	e := enginetest.Start(t, nil)
	t.Run("one form is judged, sent and recorded", func(t *testing.T) {
		for _, row := range []struct{ sent, path, query string }{
			{"/a/b", "/a/b", ""},
			{"/%61%2db/~x?q=%41&r=a/b?c", "/a-b/~x", "?q=%41&r=a/b?c"},
			{"/caf%c3%a9?x=%c3%a9", "/caf%C3%A9", "?x=%c3%a9"},
			{"/empty?", "/empty", "?"},
		} {
			for name, client := range map[string]*http.Client{"h1": e.Client(t), "h2": e.ClientH2(t)} {
				before := len(e.Origin("allowed.test").Requests())
				r := e.Do(t, client, "GET", "allowed.test", row.sent, "")
				seen := e.Origin("allowed.test").Requests()
				if r.Status != 200 || len(seen) != before+1 || seen[before].Target != row.path+row.query {
					t.Errorf("%s over %s: %d %s, the origin saw %q, want %q", row.sent, name, r.Status, r.Reason(), seen[before:], row.path+row.query)
					continue
				}
				e.WantRecord(t, enginetest.Fields{"phase": "decision", "path": row.path, "id": e.Records(t)[len(e.Records(t))-1].Get("id")})
			}
		}
	})
	t.Run("what has two readings is refused", twoReadings)
	t.Run("hop-by-hop fields go no further", func(t *testing.T) {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send("GET /hop HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n" +
			"Proxy-Authorization: Basic c2VjcmV0\r\nX-Kept: 2\r\n\r\n")
		if r := c.Reply("GET"); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		seen := e.Origin("allowed.test").Requests()
		last := seen[len(seen)-1]
		if last.Count("X-Mine")+last.Count("Connection")+last.Count("Proxy-Authorization") > 0 || last.Get("X-Kept") != "2" {
			t.Errorf("the origin got:\n%s", last.Head)
		}
	})
}

func twoReadings(t *testing.T) {
	e := enginetest.Start(t, nil)
	head := func(line, fields string) string {
		return line + " HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\n" + fields + "\r\n"
	}
	const behind = "GET /smuggled HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
	for what, raw := range map[string]string{
		"length and chunks":      head("POST /", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + behind,
		"two lengths":            head("POST /", "Content-Length: 0\r\nContent-Length: 44\r\n") + behind,
		"a length of 0x2":        head("POST /", "Content-Length: 0x2\r\n") + "hi",
		"a folded field":         head("GET /", "X: a\r\n b\r\n"),
		"a bare line feed":       "GET / HTTP/1.1\nHost: allowed.test\n\n",
		"a space before a colon": head("GET /", "X : a\r\n"),
		"two hosts":              head("GET /", "Host: other.test\r\n"),
		"dot segments":           head("GET /a/../b", ""),
		"encoded dot segments":   head("GET /a/%2e%2E/b", ""),
		"an encoded slash":       head("GET /a%2fb", ""),
		"an encoded backslash":   head("GET /a%5cb", ""),
		"an empty segment":       head("GET /a//b", ""),
		"a parameter":            head("GET /a;b", ""),
		"an encoded NUL":         head("GET /a%00", ""),
		"a broken escape":        head("GET /a%zz", ""),
		"a doubled escape":       head("GET /a%252e%252e/b", ""),
		"a fragment":             head("GET /a#b", ""),
		"absolute-form":          head("GET https://"+e.Authority("allowed.test")+"/", ""),
		"another method inside":  head("POST /", "X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n"),
	} {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(raw)
		r := c.Reply("GET")
		if r.Status < 400 || r.Status > 499 || r.Reason() == "" {
			t.Errorf("%s: %d %q", what, r.Status, r.Reason())
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": r.Reason()})
		_ = c.Close()
	}
	untouched(t, e, "allowed.test")
}

func TestPromise04AllNamesAgree(t *testing.T) {
	e := enginetest.Start(t, nil)
	port := e.Origin("allowed.test").Addr.Port()
	t.Run("an SNI unlike the target ends the handshake", func(t *testing.T) {
		err := e.RawConnect(t, "allowed.test").StartTLS("allowed.test", &enginetest.TunnelOptions{ServerName: "denied.test"})
		if err == nil || !strings.Contains(err.Error(), "remote error") {
			t.Errorf("the handshake: %v, want an alert", err)
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "name_mismatch", "host": "allowed.test", "sni": "denied.test"})
	})
	t.Run("a Host unlike the connection is misdirected", func(t *testing.T) {
		for _, host := range []string{"denied.test", fmt.Sprintf("denied.test:%d", port), "allowed.test:444", "sub.allowed.test", "allowed.test.evil"} {
			c := e.RawTunnel(t, "allowed.test", nil)
			c.Send("GET /fronted HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			refused(t, "Host "+host, c.Reply("GET"), 421, "name_mismatch")
			c.WantClosed()
		}
	})
	t.Run("so is an authority of HTTP/2", func(t *testing.T) {
		client := e.ClientH2(t)
		for _, host := range []string{"denied.test", fmt.Sprintf("denied.test:%d", port), "sub.allowed.test"} {
			req, err := http.NewRequest("GET", e.URL("allowed.test", "/fronted"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := client.Do(req)
			if err != nil {
				t.Errorf(":authority %s: %v", host, err)
				continue
			}
			_ = resp.Body.Close()
			if resp.ProtoMajor != 2 || resp.StatusCode != 421 {
				t.Errorf(":authority %s: %s %d, want HTTP/2 and 421", host, resp.Proto, resp.StatusCode)
			}
		}
	})
	t.Run("one name in several spellings is one name", func(t *testing.T) {
		c := e.RawConnect(t, fmt.Sprintf("ALLOWED.test.:%d", port))
		if err := c.StartTLS("allowed.test", nil); err != nil {
			t.Fatal(err)
		}
		c.Send(fmt.Sprintf("GET /one HTTP/1.1\r\nHost: Allowed.TEST:%d\r\n\r\n", port))
		if r := c.Reply("GET"); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		seen := e.Origin("allowed.test").Requests()
		if len(seen) != 1 || seen[0].Host != fmt.Sprintf("allowed.test:%d", port) {
			t.Errorf("the origin saw %q", seen)
		}
		e.WantRecord(t, enginetest.Fields{"phase": "complete", "host": "allowed.test", "path": "/one"})
	})
	untouched(t, e, "denied.test")
	notAsked(t, e, "denied.test", "sub.allowed.test", "allowed.test.evil")
}
