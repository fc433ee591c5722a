package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func TestPolicyIsPerAgent(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Policy: `
apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: team-a}
spec:
  agents: {namespaces: [a], serviceAccounts: [bot]}
  rules:
    - name: read
      {{to "allowed.test"}}
      methods: [GET]
---
apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: everybody-in-a}
spec:
  agents: {namespaces: [a]}
  allowlist: [listed.test]
  rules:
    - name: write
      {{to "allowed.test"}}
      methods: [POST]
      paths: [/in/**]
    - name: never
      action: deny
      hosts: ["*"]
      paths: [/in/secret]
`})
	bot, other, stranger := e.ClientAs(t, "a/bot"), e.ClientAs(t, "a/other"), e.ClientAs(t, "b/bot")
	if r := e.Do(t, bot, "GET", "allowed.test", "/", ""); r.Status != 200 {
		t.Errorf("a rule of the one policy: %d %s", r.Status, r.Reason())
	}
	if r := e.Do(t, bot, "POST", "allowed.test", "/in/x", ""); r.Status != 200 {
		t.Errorf("a rule of the other: %d %s", r.Status, r.Reason())
	}
	refused(t, "another account", e.Do(t, other, "GET", "allowed.test", "/", ""), 403, "path_not_allowed")
	refused(t, "deny beats allow", e.Do(t, bot, "POST", "allowed.test", "/in/secret", ""), 403, "denied_by_rule")
	refused(t, "deny beats allow of another policy", e.Do(t, bot, "GET", "allowed.test", "/in/secret", ""), 403, "denied_by_rule")
	if _, err := e.Try(t, stranger, "GET", "allowed.test", "/", ""); err == nil || !strings.Contains(err.Error(), "no_policy_for_agent") {
		t.Errorf("an agent without a policy: %v", err)
	}
	if _, err := e.Try(t, e.Client(t), "GET", "allowed.test", "/", ""); err == nil || !strings.Contains(err.Error(), "unknown_principal") {
		t.Errorf("nobody: %v", err)
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "rule": "read", "policy": "team-a", "agent.namespace": "a", "agent.service_account": "bot", "method": "GET"})
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "rule": "never", "reason": "denied_by_rule", "path": "/in/secret"})
	e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "no_policy_for_agent", "agent.namespace": "b"})

	// An allowlist is for 443 and 80, which no test can listen on: the host is
	// possible, and then not found.
	c := e.RawProxy(t)
	c.Send("CONNECT listed.test:443 HTTP/1.1\r\nHost: listed.test:443\r\nProxy-Authorization: Basic YS9ib3Q6\r\n\r\n")
	if r := c.Reply("CONNECT"); r.Status != 200 {
		t.Fatalf("a listed host: %d %s", r.Status, r.Reason())
	}
	if err := c.StartTLS("listed.test", nil); err != nil {
		t.Fatal(err)
	}
	c.Send("PUT /any/thing HTTP/1.1\r\nHost: listed.test\r\nContent-Length: 0\r\n\r\n")
	refused(t, "a listed host without an address", c.Reply("PUT"), 502, "resolve_failed")
	e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "host": "listed.test", "port": 443, "reason": "resolve_failed"})
	if seen := e.Origin("allowed.test").Requests(); len(seen) != 2 {
		t.Errorf("the origin saw %q", seen)
	}
}

func TestConditionsOnTheHead(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: `
- name: region
  {{to "allowed.test"}}
  when: 'request.headers["x-region"] == ["eu"]'
  headers: {set: {X-Added: by-policy}, remove: [X-Internal]}
- name: no-debug
  action: deny
  hosts: ["*"]
  when: '"debug" in request.query'
`})
	for name, client := range bothClients(t, e) {
		n := len(e.Origin("allowed.test").Requests())
		if r := e.Do(t, client, "GET", "allowed.test", "/x", "", "X-Region: eu", "X-Internal: 1", "X-Added: by-agent"); r.Status != 200 {
			t.Errorf("%s: %d %s", name, r.Status, r.Reason())
		}
		refused(t, "another region", e.Do(t, client, "GET", "allowed.test", "/x", "", "X-Region: us"), 403, "condition_not_met")
		refused(t, "two regions", e.Do(t, client, "GET", "allowed.test", "/x", "", "X-Region: eu", "X-Region: us"), 403, "condition_not_met")
		refused(t, "no region", e.Do(t, client, "GET", "allowed.test", "/x", ""), 403, "condition_not_met")
		refused(t, "deny by query", e.Do(t, client, "GET", "allowed.test", "/x?debug=1", "", "X-Region: eu"), 403, "denied_by_rule")
		seen := e.Origin("allowed.test").Requests()
		if len(seen) != n+1 || seen[n].Get("X-Added") != "by-policy" || seen[n].Count("X-Added") != 1 || seen[n].Count("X-Internal") != 0 {
			t.Errorf("%s: the origin saw %q", name, seen[n:])
		}
	}
}

func TestRecordPath(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{
		Policy:    "- name: hidden\n  {{to \"allowed.test\"}}\n  paths: [/hook/*]\n  recordPath: pattern\n- name: hashed\n  {{to \"allowed.test\"}}\n  paths: [/token/*]\n  recordPath: hash\n",
		Hosts:     map[string]enginetest.Host{"allowed.test": {}},
		Unmatched: true, // the log has a pattern where the origin has a path
	})
	e.Do(t, e.Client(t), "GET", "allowed.test", "/hook/s3cr3t", "")
	e.Do(t, e.Client(t), "GET", "allowed.test", "/token/s3cr3t", "")
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "rule": "hidden", "path_pattern": "/hook/*", "path": nil})
	if end := e.WantRecord(t, enginetest.Fields{"phase": "complete", "rule": "hashed", "path": nil}); !strings.Contains(end.Line, sha256Hex("/token/s3cr3t")) {
		t.Errorf("no digest of the path: %s", end.Line)
	}
	if strings.Contains(e.Dump(t), "s3cr3t") {
		t.Error("the log has the path")
	}
}

func TestRequestCount(t *testing.T) {
	const rule = "- name: few\n  {{to \"allowed.test\"}}\n  methods: [GET]\n  limits: {maxRequests: 2}\n"
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Policy: rule})
	one := e.ClientAs(t, "one")
	refused(t, "a denial counts for nothing", e.Do(t, one, "POST", "allowed.test", "/", ""), 403, "method_not_allowed")
	for i, want := range []int{200, 200, 429} {
		r := e.Do(t, one, "GET", "allowed.test", "/", "")
		if r.Status != want || want == 429 && r.Reason() != "request_count_exceeded" {
			t.Errorf("request %d: %d %s", i+1, r.Status, r.Reason())
		}
	}
	e.SetPolicy(t, rule+"- name: more\n  {{to \"allowed.test\"}}\n  methods: [PUT]\n")
	refused(t, "a reload gives nothing back", e.Do(t, one, "GET", "allowed.test", "/", ""), 429, "request_count_exceeded")
	if r := e.Do(t, e.ClientAs(t, "two"), "GET", "allowed.test", "/", ""); r.Status != 200 {
		t.Errorf("another agent: %d %s", r.Status, r.Reason())
	}
	e.WantRecords(t, 2, enginetest.Fields{"event": "egress_denied", "reason": "request_count_exceeded", "rule": "few", "status_code": 429})
	if n := len(e.Origin("allowed.test").Requests()); n != 3 {
		t.Errorf("%d requests arrived, want 3", n)
	}
}

func TestObserve(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Observe: true, Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {}, "other.test": {}}})
	client := e.Client(t)
	if r := e.Do(t, client, "DELETE", "allowed.test", "/x", ""); r.Status != 403 || r.Reason() != "address_denied" {
		// No rule matches, so that none lets loopback through: the guard is not relaxed.
		t.Errorf("%d %s", r.Status, r.Reason())
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "decision", "method": "DELETE", "observed": "true", "reason": "method_not_allowed"})
	refused(t, "the address guard", e.Do(t, client, "GET", "other.test", "/x", ""), 403, "address_denied")
	e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "decision", "host": "other.test", "observed": "true", "reason": "not_in_allowlist"})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send(line(e, "POST", "/x", "Content-Length: 1", "Content-Length: 1") + "\r\nx")
	refused(t, "framing", c.Reply("POST"), 400, "bad_framing")
	refused(t, "a path with two readings", e.Do(t, client, "GET", "allowed.test", "/a%2fb", ""), 400, "ambiguous_path")
	if r := e.Do(t, client, "GET", "allowed.test", "/x", ""); r.Status != 200 {
		t.Errorf("what is allowed: %d %s", r.Status, r.Reason())
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "method": "GET", "path": "/x", "observed": nil})
	untouched(t, e, "other.test")
}

// TestReloadJudgesOpenConnections changes the policy under connections, streams
// and uploads.
func TestReloadJudgesOpenConnections(t *testing.T) {
	const less = "- name: read\n  {{to \"allowed.test\"}}\n  methods: [GET]\n  paths: [/short]\n"
	release := make(chan struct{})
	serve := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/upload":
			_, _ = io.Copy(io.Discard, r.Body)
		case "/think":
			<-release
		}
	}
	for _, name := range []string{"h1", "h2"} {
		t.Run(name, func(t *testing.T) {
			e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {Handler: http.HandlerFunc(serve)}}})
			client := bothClients(t, e)[name]
			if r := e.Do(t, client, "GET", "allowed.test", "/path", ""); r.Status != 200 {
				t.Fatal(r.Status)
			}
			resp, err := client.Get(e.URL("allowed.test", "/events"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 9)); err != nil {
				t.Fatal(err)
			}
			e.SetPolicy(t, readPolicy+"- name: more\n  {{to \"allowed.test\"}}\n  methods: [DELETE]\n")
			if r := e.Do(t, client, "DELETE", "allowed.test", "/path", ""); r.Status != 200 {
				t.Errorf("a new rule in an open connection: %d %s", r.Status, r.Reason())
			}
			e.NoRecord(t, enginetest.Fields{"path": "/events", "phase": "complete"})

			up, w := io.Pipe()
			defer w.Close()
			uploaded := make(chan *http.Response, 1)
			go func() {
				resp, _ := client.Post(e.URL("allowed.test", "/upload"), "", up)
				uploaded <- resp
			}()
			_, _ = io.WriteString(w, "part")
			enginetest.Eventually(func() bool {
				for _, s := range e.Origin("allowed.test").Requests() {
					if s.Path() == "/upload" && s.BodyBytes == 4 {
						return true
					}
				}
				return false
			})
			e.SetPolicy(t, less)
			if rest, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the stream whose rule is gone ended well, with %q", rest)
			}
			if resp := <-uploaded; resp != nil {
				_ = resp.Body.Close()
				if resp.StatusCode != 403 || resp.Header.Get("X-Aegrail-Reason") != "policy_changed" {
					t.Errorf("the upload whose rule is gone: %d %s", resp.StatusCode, resp.Header.Get("X-Aegrail-Reason"))
				}
			}
			e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/events", "reason": "policy_changed", "status_code": 200, "truncated": "true"})
			e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/upload", "reason": "policy_changed", "status_code": 403, "request_bytes": 4})
			refused(t, "what was allowed before", e.Do(t, client, "GET", "allowed.test", "/path", ""), 403, "path_not_allowed")
			if r := e.Do(t, client, "GET", "allowed.test", "/short", ""); r.Status != 200 {
				t.Errorf("what still is: %d %s", r.Status, r.Reason())
			}
		})
	}
	close(release)
}

// TestJSONRPCRefusals has the id of the call in the refusal, as it was written.
func TestJSONRPCRefusals(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: "- name: mcp\n  {{to \"allowed.test\"}}\n  paths: [/mcp]\n  when: 'request.body.json.method == \"ok\"'\n"})
	for what, row := range map[string]struct{ body, id string }{
		"a number":          {`{"jsonrpc":"2.0","id":7,"method":"no"}`, "7"},
		"a string":          {`{"jsonrpc":"2.0","id":"a\"b","method":"no"}`, `"a\"b"`},
		"null":              {`{"jsonrpc":"2.0","id":null,"method":"no"}`, "null"},
		"a notification":    {`{"jsonrpc":"2.0","method":"no"}`, "null"},
		"an id that is not": {`{"jsonrpc":"2.0","id":{"a":1},"method":"no"}`, "null"},
	} {
		for name, client := range bothClients(t, e) {
			r := e.Do(t, client, "POST", "allowed.test", "/mcp", row.body, isJSON)
			var answer struct {
				ID    json.RawMessage `json:"id"`
				Error struct{ Message string }
			}
			err := json.Unmarshal([]byte(r.Body), &answer)
			if err != nil || r.Status != 403 || string(answer.ID) != row.id || answer.Error.Message == "" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s over %s: %d %s %v, want the id %s", what, name, r.Status, r.Body, err, row.id)
			}
		}
	}
	r := e.Do(t, e.Client(t), "POST", "allowed.test", "/other", `{"jsonrpc":"2.0","id":7}`, "Content-Type: application/json", "Mcp-Protocol-Version: 2025-06-18")
	if r.Status != 403 || !strings.Contains(r.Body, `"id":null`) || r.Reason() != "path_not_allowed" {
		t.Errorf("a body that no rule read: %d %s", r.Status, r.Body)
	}
	r = e.Do(t, e.Client(t), "POST", "allowed.test", "/mcp", `{"id":7,"method":"no"}`, isJSON)
	if r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("JSON that is no call: %s", r.Body)
	}
	untouched(t, e, "allowed.test")
}

// TestStrictDurability makes the usual requests with a log that is on the disk
// before each is sent.
func TestStrictDurability(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Strict: true})
	for _, client := range bothClients(t, e) {
		if r := e.Do(t, client, "POST", "allowed.test", "/strict", "body"); r.Status != 200 {
			t.Errorf("%d %s", r.Status, r.Reason())
		}
		refused(t, "a denial", e.Do(t, client, "DELETE", "allowed.test", "/", ""), 403, "method_not_allowed")
	}
	e.WantRecords(t, 2, enginetest.Fields{"phase": "complete", "path": "/strict", "request_sha256": sha256Hex("body")})
	if start := e.Records(t)[0]; start.Get("durability") != "strict" {
		t.Errorf("the first record: %s", start.Line)
	}
}

// TestShutdownDrains stops the engine while requests are under way.
func TestShutdownDrains(t *testing.T) {
	for _, name := range []string{"h1", "h2"} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
				<-release
				c.Reply(200, "drained")
			}}}})
			idle := e.RawTunnel(t, "allowed.test", nil)
			client := bothClients(t, e)[name]
			answered := make(chan *http.Response, 1)
			go func() {
				resp, err := client.Get(e.URL("allowed.test", "/slow"))
				if err != nil {
					t.Error(err)
				}
				answered <- resp
			}()
			e.WantRecord(t, enginetest.Fields{"phase": "decision", "path": "/slow"})
			stopped := make(chan struct{})
			go func() { e.Stop(t); close(stopped) }()
			idle.WantClosed() // Shutdown has begun
			close(release)
			if resp := <-answered; resp != nil {
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(body) != "drained" || err != nil {
					t.Errorf("%d %q %v", resp.StatusCode, body, err)
				}
			}
			<-stopped
			e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/slow", "truncated": nil})
			if all := e.Records(t); all[len(all)-1].Event != "engine_shutdown" {
				t.Errorf("the last record: %s", all[len(all)-1].Line)
			}
		})
	}
	t.Run("and does not wait for ever", func(t *testing.T) {
		release := make(chan struct{})
		e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {Script: func(c *enginetest.OriginConn) {
			if _, err := c.ReadRequest(); err == nil {
				<-release
			}
		}}}})
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(line(e, "GET", "/never") + "\r\n")
		e.WantRecord(t, enginetest.Fields{"phase": "decision", "path": "/never"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.Server.Shutdown(ctx); err == nil {
			t.Error("a shutdown that cut a request says nothing")
		}
		e.WantRecord(t, enginetest.Fields{"event": "egress_error", "phase": "complete", "path": "/never", "reason": "shutdown", "status_code": 503})
		close(release)
	})
}
