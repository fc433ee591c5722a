package proxy_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

func TestPromise05NeverFailOpen(t *testing.T) {
	t.Run("an origin that cannot be trusted", badOrigins)
	t.Run("a client that rejects our certificate", func(t *testing.T) {
		e := enginetest.Start(t, nil)
		strangers := &enginetest.TunnelOptions{Config: &tls.Config{RootCAs: e.Root.Pool}}
		for range 3 {
			if err := e.RawConnect(t, "allowed.test").StartTLS("allowed.test", strangers); err == nil {
				t.Fatal("a client with other roots took our certificate, or the origin's own came through")
			}
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_error", "reason": "client_rejected_certificate", "host": "allowed.test"})
		untouched(t, e, "allowed.test")
		inspected(t, e, "allowed.test")
	})
	t.Run("a client that rejects it in the clear", rejectionsInTheClear)
	t.Run("a protocol that is not known", func(t *testing.T) {
		e := enginetest.Start(t, nil)
		for _, raw := range []string{"SSH-2.0-OpenSSH_9.7\r\n", "EHLO agent.test\r\n", "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "\x00\x00\x00\x08\x04\xd2\x16\x2f"} {
			c := e.RawConnect(t, "allowed.test")
			c.Send(raw)
			c.WantClosed()
		}
		e.WantRecords(t, 4, enginetest.Fields{"event": "egress_denied", "reason": "not_tls", "host": "allowed.test"})
		untouched(t, e, "allowed.test")
		inspected(t, e, "allowed.test")
	})
	t.Run("a policy that does not compile", func(t *testing.T) {
		e := enginetest.Start(t, nil)
		revision := inspected(t, e, "allowed.test")
		for _, bad := range []string{"spec: [", "- name: x\n  hosts: [\"*\"]\n  verbs: [GET]", "- name: x\n  {{to \"allowed.test\"}}\n  when: 'no such('"} {
			if err := e.TrySetPolicy(bad); err == nil {
				t.Errorf("%q compiles", bad)
			}
		}
		if now := inspected(t, e, "allowed.test"); now != revision {
			t.Errorf("revision %s is in force, want the last good one, %s", now, revision)
		}
		refused(t, "what was denied", e.Do(t, e.Client(t), "DELETE", "allowed.test", "/", ""), 403, "method_not_allowed")
	})
}

// clearAlert is a client's connection that ends with an alert that is not
// encrypted, as OpenSSL's does in TLS 1.3.
type clearAlert struct {
	net.Conn
	ended bool
}

func (c *clearAlert) Write(p []byte) (int, error) {
	if c.ended {
		return len(p), nil // crypto/tls's own alert
	}
	return c.Conn.Write(p)
}

func (c *clearAlert) end(record string) {
	_ = byteByByte(c.Conn, []byte(record))
	c.ended = true
}

func rejectionsInTheClear(t *testing.T) {
	e := enginetest.Start(t, nil)
	for _, row := range []struct{ what, record, event, reason string }{
		{"unknown_ca", "\x15\x03\x03\x00\x02\x02\x30", "egress_error", "client_rejected_certificate"},
		{"bad_certificate", "\x15\x03\x03\x00\x02\x02\x2a", "egress_error", "client_rejected_certificate"},
		{"certificate_expired behind a change_cipher_spec", "\x14\x03\x03\x00\x01\x01\x15\x03\x03\x00\x02\x02\x2d", "egress_error", "client_rejected_certificate"},
		{"illegal_parameter", "\x15\x03\x03\x00\x02\x02\x2f", "egress_error", "client_alert"},
		{"an alert of no level", "\x15\x03\x03\x00\x02\x03\x30", "egress_denied", "bad_client_hello"},
		{"no alert", "\x16\x03\x03\x00\x02\x02\x30", "egress_denied", "bad_client_hello"},
	} {
		f := enginetest.Fields{"event": row.event, "reason": row.reason, "host": "allowed.test"}
		before := len(e.Find(t, f))
		c := e.RawConnect(t, "allowed.test")
		w := &clearAlert{Conn: c.Conn}
		err := tls.Client(w, &tls.Config{RootCAs: e.CAPool, ServerName: "allowed.test", MinVersion: tls.VersionTLS13,
			VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error {
				w.end(row.record)
				return errors.New("not trusted")
			}}).Handshake()
		if err == nil || err.Error() != "not trusted" {
			t.Fatalf("%s: %v", row.what, err)
		}
		if e.WantRecords(t, before+1, f); t.Failed() {
			t.Fatal(row.what)
		}
	}
	untouched(t, e, "allowed.test")
	inspected(t, e, "allowed.test")
	if text := e.MetricsText(t); !strings.Contains(text, `aegrail_handshakes_total{outcome="client_rejected_certificate"} 3`) {
		t.Error("the metric does not count three clients that reject the certificate")
	}
}

// inspected fails the test unless a new connection to host is terminated by the
// engine and works. It returns the policy revision that judged it.
func inspected(t *testing.T, e *enginetest.Engine, host string) string {
	t.Helper()
	c := e.RawTunnel(t, host, nil)
	if issuer := c.State().PeerCertificates[0].Issuer.String(); issuer != e.CA.Certificate().Subject.String() {
		t.Errorf("the certificate of %s is issued by %s and not by the engine", host, issuer)
	}
	c.WantOpen(host, "/inspected")
	return e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/inspected", "host": host}).Get("policy_revision")
}

// badOrigins are rows T1 to T15: each is answered 502 with its reason inside
// TLS, nothing of the request arrives, and the next connection is inspected.
func badOrigins(t *testing.T) {
	root := enginetest.NewRoot(t, "origin root of the rows")
	rows := root.BadTLS(t, "*.bad.test")
	hosts := map[string]enginetest.Host{
		"good.test": {},
		"cut.test":  {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) { c.Cut() }}, // row T15
	}
	for i, row := range rows {
		hosts[fmt.Sprintf("row%d.bad.test", i)] = enginetest.Host{TLS: row.TLS}
	}
	e := enginetest.Start(t, &enginetest.Options{Hosts: hosts, Root: root, Policy: `
- name: all
  {{to "*.bad.test" "good.test" "cut.test"}}
`})
	client := e.Client(t)
	for i, row := range rows {
		what, name := row.Row+" "+row.Name, fmt.Sprintf("row%d.bad.test", i)
		r := e.Do(t, client, "POST", name, "/", "a secret")
		if r.Status != 502 || !strings.HasPrefix(r.Reason(), "upstream_") {
			t.Errorf("%s: %d %q, want 502 and an upstream reason", what, r.Status, r.Reason())
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "host": name, "reason": r.Reason()})
		if got := e.Origin(name).AllBytes(); len(got) > 0 {
			t.Errorf("%s: the origin got %q", what, got)
		}
	}
	if r := e.Do(t, client, "POST", "cut.test", "/", "x"); r.Status != 502 {
		t.Errorf("T15 cut without an answer: %d %q", r.Status, r.Reason())
	}
	inspected(t, e, "good.test")
}

// TestPromise06 is about what an agent gets to see of the authority. That the
// process cannot be dumped or traced is tested where it is done, in cmd.
func TestPromise06TheCAKeyStaysInTheEngine(t *testing.T) {
	e := enginetest.Start(t, nil)
	ca := e.CA.Certificate()
	keys := map[string]bool{}
	for _, host := range []string{"allowed.test", "api.openai.com"} {
		chain := e.RawTunnel(t, host, nil).State().PeerCertificates
		leaf := chain[0]
		key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Equal(ca.PublicKey) {
			t.Errorf("%s: the leaf's key is the CA's, or no ECDSA key", host)
		}
		if err := leaf.CheckSignatureFrom(ca); err != nil || leaf.IsCA {
			t.Errorf("%s: %v, or a CA", host, err)
		}
		if !slices.Equal(leaf.DNSNames, []string{host}) || len(leaf.IPAddresses) > 0 || leaf.Subject.CommonName != "" {
			t.Errorf("%s: the leaf is for %q %v and %q", host, leaf.DNSNames, leaf.IPAddresses, leaf.Subject.CommonName)
		}
		if leaf.NotAfter.After(ca.NotAfter) || leaf.NotAfter.Sub(leaf.NotBefore) > 24*time.Hour {
			t.Errorf("%s: the leaf is valid from %s to %s", host, leaf.NotBefore, leaf.NotAfter)
		}
		raw, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		keys[string(raw)] = true
	}
	if len(keys) != 1 {
		t.Errorf("%d leaf keys, want the process's one", len(keys))
	}
	for what, text := range map[string]string{
		"the log": e.Dump(t), "a print of the CA": fmt.Sprintf("%v %+v %#v %x", e.CA, e.CA, e.CA, e.CA), "a print of the store": fmt.Sprintf("%+v", e.Leaves),
	} {
		if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "PrivateKey") {
			t.Errorf("%s has a private key", what)
		}
	}
}

func TestPromise07EverythingFromOutsideIsBounded(t *testing.T) {
	t.Run("a head has a size and a number of fields", func(t *testing.T) {
		e := enginetest.Start(t, nil)
		line := "GET / HTTP/1.1\r\nHost: " + e.Authority("allowed.test") + "\r\n"
		for what, raw := range map[string]string{
			"a megabyte of one field": line + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
			"ten thousand fields":     line + strings.Repeat("X: y\r\n", 10_000) + "\r\n",
			"a target without an end": "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n\r\n",
		} {
			c := e.RawTunnel(t, "allowed.test", nil)
			go c.Send(raw) // the engine stops reading at its limit
			if r := c.Reply("GET"); r.Status != 431 {
				t.Errorf("%s: %d %q, want 431", what, r.Status, r.Reason())
			}
		}
		untouched(t, e, "allowed.test")
	})
	t.Run("what is slow has a deadline", slowClients)
	t.Run("an address has so many connections", func(t *testing.T) {
		e := enginetest.Start(t, &enginetest.Options{Limits: proxy.Limits{ConnectionsPerClient: 2}})
		first, second := e.RawTunnel(t, "allowed.test", nil), e.RawTunnel(t, "allowed.test", nil)
		e.RawProxy(t).WantClosed()
		second.WantOpen("allowed.test", "/second")
		_ = first.Close()
		if !enginetest.Eventually(func() bool {
			c := e.RawProxy(t)
			defer c.Close()
			c.Send("GET http://" + e.Authority("denied.test") + "/ HTTP/1.1\r\nHost: " + e.Authority("denied.test") + "\r\n\r\n")
			r, err := c.TryReply("GET")
			return err == nil && r.Status == 403
		}) {
			t.Error("a place that became free is not given again")
		}
	})
	t.Run("one agent's flood of refusals costs that agent only", refusalFlood)
	t.Run("one agent's requests under way cost that agent only", exchangesUnderWay)
	t.Run("one agent's names cost that agent only", namesOfOneAgent)
	t.Run("one agent's rate costs that agent only", func(t *testing.T) {
		e := enginetest.Start(t, &enginetest.Options{Agents: true, Policy: `
- name: limited
  {{to "allowed.test"}}
  limits: {rate: 2/hour}
`})
		for i, want := range []int{200, 200, 429, 429} {
			if r := e.Do(t, e.ClientAs(t, "greedy"), "GET", "allowed.test", "/", ""); r.Status != want {
				t.Errorf("request %d: %d %q, want %d", i+1, r.Status, r.Reason(), want)
			} else if want == 429 && (r.Reason() != "rate_limited" || r.Header.Get("Retry-After") == "") {
				t.Errorf("request %d: %q, Retry-After %q", i+1, r.Reason(), r.Header.Get("Retry-After"))
			}
		}
		if r := e.Do(t, e.ClientAs(t, "modest"), "GET", "allowed.test", "/", ""); r.Status != 200 {
			t.Errorf("another agent: %d %q", r.Status, r.Reason())
		}
	})
}

// slowClients stop in the middle. No duration is asserted: that they end, and
// with which word, is.
func slowClients(t *testing.T) {
	const soon = 50 * time.Millisecond
	big := strings.Repeat("x", 64<<20)
	e := enginetest.Start(t, &enginetest.Options{
		Limits: proxy.Limits{Handshake: 20 * soon, Head: 20 * soon, BodyStall: soon, BodyRead: soon, WriteStall: soon},
		Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
			c.Reply(200, big)
		}}, "judged.test": {}},
		Policy: `
- name: read
  {{to "allowed.test"}}
- name: judged
  {{to "judged.test"}}
  when: 'request.body.json.x == 1'
`,
	})
	host := e.Authority("allowed.test")
	e.RawConnect(t, "allowed.test").WantClosed()
	e.WantRecord(t, enginetest.Fields{"reason": "handshake_timeout", "host": "allowed.test"})

	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send("GET / HTTP/1.1\r\nHost: ")
	refused(t, "half a head", c.Reply("GET"), 408, "head_timeout")
	c.WantClosed()

	c = e.RawTunnel(t, "allowed.test", nil)
	c.Send("POST /slow HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 10\r\n\r\nabc")
	refused(t, "a part of a body", c.Reply("POST"), 408, "body_timeout")
	c.WantClosed()
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/slow", "reason": "body_timeout", "request_bytes": 3})

	c = e.RawTunnel(t, "judged.test", nil)
	c.Send("POST / HTTP/1.1\r\nHost: " + e.Authority("judged.test") + "\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"x\"")
	refused(t, "a part of a judged body", c.Reply("POST"), 408, "body_timeout")
	untouched(t, e, "judged.test")

	c = e.RawTunnel(t, "allowed.test", nil)
	c.Send("GET /unread HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/unread", "reason": "client_stalled"})
}

func refusalFlood(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Log: func(c *audit.Config) {
		c.Refusals = audit.RefusalLimits{First: 3, Window: time.Hour, Rate: 1, Burst: 10}
		start := time.Now()
		c.Now = func() time.Time { return start } // a budget that does not fill again, however slow the machine
	}})
	loud, quiet := e.ClientAs(t, "loud"), e.ClientAs(t, "quiet")
	over := 0
	for range 100 {
		r := e.Do(t, loud, "DELETE", "allowed.test", "/", "")
		switch {
		case r.Status == 429 && r.Reason() == "refusal_budget":
			over++
		case r.Status != 403:
			t.Fatalf("%d %q", r.Status, r.Reason())
		}
	}
	if over < 50 {
		t.Errorf("%d of 100 refusals were beyond a budget of 10", over)
	}
	refused(t, "what the loud agent may do otherwise", e.Do(t, loud, "GET", "allowed.test", "/", ""), 429, "refusal_budget")
	refused(t, "a refusal of the quiet agent", e.Do(t, quiet, "DELETE", "allowed.test", "/", ""), 403, "method_not_allowed")
	if r := e.Do(t, quiet, "GET", "allowed.test", "/", ""); r.Status != 200 {
		t.Errorf("the quiet agent: %d %q", r.Status, r.Reason())
	}
	if n := len(e.Find(t, enginetest.Fields{"event": "egress_denied", "agent_identity": "loud"})); n > 10 {
		t.Errorf("%d records of the flood", n)
	}
	e.Stop(t)
	var counted int64
	for _, entry := range e.Log(t) {
		if entry.Event == "egress_denied" && entry.AgentIdentity == "loud" {
			counted += max(entry.Count, 1)
		}
	}
	if counted < 100 {
		t.Errorf("the records stand for %d refusals, there were 100", counted)
	}
}

// exchangesUnderWay has one agent fill its places with a request over HTTP/1.1,
// one over HTTP/2 and a tunnel.
func exchangesUnderWay(t *testing.T) {
	proceed := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{
		Agents: true, Limits: proxy.Limits{ExchangesPerPrincipal: 3},
		Policy: "- name: read\n  {{to \"allowed.test\"}}\n- name: pinned\n  {{to \"pinned.test\"}}\n  tls: passthrough\n",
		Hosts: map[string]enginetest.Host{
			"allowed.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-proceed
				}
				w.WriteHeader(204)
			})},
			"pinned.test": {},
		},
	})
	greedy, modest := e.ClientAs(t, "greedy"), e.ClientAs(t, "modest")
	slow := make(chan int, 2)
	for _, client := range []*http.Client{greedy, e.ClientH2As(t, "greedy")} {
		go func() {
			r, err := e.Try(t, client, "GET", "allowed.test", "/slow", "")
			if err != nil {
				t.Error(err)
				r = new(enginetest.Reply)
			}
			slow <- r.Status
		}()
	}
	tunnel := e.RawConnectAs(t, "greedy", "pinned.test")
	if err := tunnel.StartTLS("pinned.test", &enginetest.TunnelOptions{Config: &tls.Config{RootCAs: e.Root.Pool}}); err != nil {
		t.Fatal(err)
	}
	e.WantRecords(t, 3, enginetest.Fields{"event": "egress_allowed", "phase": "decision"})
	r := e.Do(t, greedy, "GET", "allowed.test", "/more", "")
	refused(t, "one more", r, 503, "too_many_exchanges")
	if r.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "too_many_exchanges", "path": "/more", "agent_identity": "greedy"})
	refused(t, "one more over HTTP/2", e.Do(t, e.ClientH2As(t, "greedy"), "GET", "allowed.test", "/more", ""), 503, "too_many_exchanges")
	second := e.RawConnectAs(t, "greedy", "pinned.test")
	if err := second.StartTLS("pinned.test", &enginetest.TunnelOptions{Config: &tls.Config{RootCAs: e.Root.Pool}}); err == nil {
		t.Error("one more tunnel was opened")
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "too_many_exchanges", "host": "pinned.test"})
	if r := e.Do(t, modest, "GET", "allowed.test", "/", ""); r.Status != 204 {
		t.Errorf("another agent: %d %q", r.Status, r.Reason())
	}
	close(proceed)
	for range 2 {
		if status := <-slow; status != 204 {
			t.Errorf("a request within the limit: %d", status)
		}
	}
	if !enginetest.Eventually(func() bool { return e.Do(t, greedy, "GET", "allowed.test", "/", "").Status == 204 }) {
		t.Error("a place that became free is not given again")
	}
}

// namesOfOneAgent has one agent use up its mints.
func namesOfOneAgent(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Agents: true, Policy: "- name: read\n  {{to \"*.names.test\"}}\n",
		Hosts: map[string]enginetest.Host{"a.names.test": {}, "b.names.test": {}, "c.names.test": {}},
		Proxy: func(c *proxy.Config) {
			var err error
			if c.Leaves, err = certs.NewStore(c.Leaves.Authority(), certs.StoreOptions{MintBurst: 2, MintRate: 1e-9}); err != nil {
				t.Error(err)
			}
		},
	})
	loud, quiet := e.ClientAs(t, "loud"), e.ClientAs(t, "quiet")
	for _, host := range []string{"a.names.test", "b.names.test"} {
		if r := e.Do(t, loud, "GET", host, "/", ""); r.Status != 200 {
			t.Errorf("%s: %d %q", host, r.Status, r.Reason())
		}
	}
	if r, err := e.Try(t, loud, "GET", "c.names.test", "/", ""); err == nil {
		t.Errorf("a third name: %d, want no handshake", r.Status)
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "reason": "leaf_not_minted", "host": "c.names.test", "agent_identity": "loud"})
	if r := e.Do(t, quiet, "GET", "c.names.test", "/", ""); r.Status != 200 {
		t.Errorf("another agent: %d %q", r.Status, r.Reason())
	}
}
