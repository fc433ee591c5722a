package proxy_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

// TestL01HostileText puts what breaks lines and terminals wherever an agent's
// words get into the log. The harness verifies that each record is one line.
func TestL01HostileText(t *testing.T) {
	e := enginetest.Start(t, nil)
	hostile := "a%0Ab%1B%5B31m%E2%80%A8"
	for name, client := range bothClients(t, e) {
		if r := e.Do(t, client, "GET", "allowed.test", "/l%E2%80%A8/"+name+"?"+hostile+"=1&%FF%FE=2", ""); r.Status != 200 {
			t.Errorf("%s: %d %s %s", name, r.Status, r.Reason(), r.Body)
			continue
		}
		record := e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/l%E2%80%A8/" + name})
		keys, _ := json.Marshal(record.Payload["query_keys"])
		if want, _ := json.Marshal("a\nb\x1b[31m\u2028"); !bytes.Contains(keys, want) {
			t.Errorf("query keys %s, want %s among them", keys, want)
		}
	}
	for what, sni := range map[string]string{"a line feed": "a\nb.test", "an escape": "a\x1b[31m.test", "bad UTF-8": "a\xff\xfe.test", "a NUL": "allowed.test\x00.evil.test"} {
		if err := e.RawConnect(t, "allowed.test").StartTLS("allowed.test", &enginetest.TunnelOptions{ServerName: sni}); err == nil {
			t.Errorf("%s in the SNI", what)
		}
	}
	for _, raw := range []string{"G\x1bET / HTTP/1.1\r\n\r\n", "GET /\xe2\x80\xa8 HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n", "GET / HTTP/1.1\r\nX\xff: y\r\n\r\n"} {
		c := e.RawTunnel(t, "allowed.test", nil)
		c.Send(raw)
		if r := c.Reply("GET"); r.Status < 400 || r.Status > 499 {
			t.Errorf("%q: %d", raw, r.Status)
		}
	}
	e.WantRecords(t, 8, enginetest.Fields{"event": "egress_denied"})
	for _, r := range e.Records(t) {
		for i := range len(r.Line) {
			if r.Line[i] < ' ' || r.Line[i] > '~' {
				t.Fatalf("byte %#x in a line: %q", r.Line[i], r.Line)
			}
		}
	}
}

// TestL02LongPaths has one that is too long for a head, and one that is too
// long for a record.
func TestL02LongPaths(t *testing.T) {
	e := enginetest.Start(t, nil)
	c := e.RawTunnel(t, "allowed.test", nil)
	go c.Send("GET /" + strings.Repeat("a", 10<<20) + " HTTP/1.1\r\n\r\n")
	if r := c.Reply("GET"); r.Status != 431 {
		t.Errorf("10 MiB: %d %s", r.Status, r.Reason())
	}
	long := "/" + strings.Repeat("b", 30_000)
	if r := e.Do(t, e.Client(t), "DELETE", "allowed.test", long, ""); r.Status != 403 {
		t.Fatalf("%d %s", r.Status, r.Reason())
	}
	record := e.WantRecord(t, enginetest.Fields{"event": "egress_denied", "reason": "method_not_allowed"})
	if len(record.Line) > 16<<10 || !strings.Contains(record.Line, sha256Hex(long)) || !strings.Contains(record.Line, fmt.Sprint(len(long))) {
		t.Errorf("the record has %d bytes; want the path capped, with its length and digest %s:\n%.2000s", len(record.Line), sha256Hex(long), record.Line)
	}
	if r := e.Do(t, e.Client(t), "GET", "allowed.test", "/keys?"+strings.Repeat("k=v&", 3)+manyKeys(70)+"&policy", ""); r.Status != 200 {
		t.Fatalf("%d %s", r.Status, r.Reason())
	}
	record = e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/keys"})
	if keys, _ := record.Payload["query_keys"].([]any); len(keys) != 64 || fmt.Sprint(record.Payload["query_keys_len"]) != "72" {
		t.Errorf("%d keys of %v, want 64 of 72", len(keys), record.Payload["query_keys_len"])
	}
	for _, r := range e.Records(t) {
		if len(r.Line) > 16<<10 {
			t.Errorf("a record of %d bytes", len(r.Line))
		}
	}
}

// manyKeys is a query of n names.
func manyKeys(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("k%d=v", i)
	}
	return strings.Join(names, "&")
}

// TestL03FloodsBeforeHTTP floods with what never becomes a request.
func TestL03FloodsBeforeHTTP(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Log: func(c *audit.Config) {
		c.Refusals = audit.RefusalLimits{First: 3, Window: time.Hour, Rate: 1, Burst: 20}
	}})
	connect := func(host string) *enginetest.Conn {
		c := e.RawProxy(t)
		target := e.Authority(host)
		c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\nProxy-Authorization: Basic bG91ZDo=\r\n\r\n")
		return c
	}
	for range 10 {
		c := connect("allowed.test")
		if r := c.Reply("CONNECT"); r.Status != 200 {
			t.Fatalf("CONNECT: %d %s", r.Status, r.Reason())
		}
		c.Send("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
		_, _ = c.Read(make([]byte, 64)) // its alert
		_ = c.Close()
	}
	over := 0
	for range 40 {
		switch r := connect("denied.test").Reply("GET"); {
		case r.Status == 429 && r.Reason() == "refusal_budget":
			over++
		case r.Status != 403:
			t.Fatalf("%d %s", r.Status, r.Reason())
		}
	}
	if over == 0 {
		t.Error("the flood had no end")
	}
	if n := len(e.Find(t, enginetest.Fields{"event": "egress_denied"})); n > 20 {
		t.Errorf("%d records of a flood of 50", n)
	}
	if r := e.Do(t, e.ClientAs(t, "quiet"), "GET", "allowed.test", "/", ""); r.Status != 200 {
		t.Errorf("another agent: %d %s", r.Status, r.Reason())
	}
	if n := e.Leaves.Stats().Mints; n != 1 {
		t.Errorf("%d leaves were minted, want the quiet agent's (a ClientHello of noise names nothing)", n)
	}
	untouched(t, e, "denied.test")
}

// TestL10ACrashLeavesTheDecision looks at the log as a crash would leave it.
func TestL10ACrashLeavesTheDecision(t *testing.T) {
	release := make(chan struct{})
	e := enginetest.Start(t, &enginetest.Options{Policy: readPolicy, Hosts: map[string]enginetest.Host{"allowed.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) {
		<-release
		c.Reply(200, "")
	}}}})
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send(line(e, "GET", "/flight") + "\r\n")
	e.WantRecord(t, enginetest.Fields{"phase": "decision", "path": "/flight"})
	data, err := os.ReadFile(e.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	crashed := filepath.Join(t.TempDir(), "crashed.jsonl")
	if err := os.WriteFile(crashed, append(data, data[:40]...), 0o600); err != nil { // and a torn line
		t.Fatal(err)
	}
	log, err := audit.Open(audit.Config{File: crashed, Identity: "test-agent"})
	if err != nil {
		t.Fatalf("the next start: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify([]string{crashed}, audit.VerifyOptions{})
	if err != nil || report.Incomplete != 1 || report.Sessions != 2 {
		t.Errorf("%+v, %v; want one request without its end", report, err)
	}
	close(release)
	wantStatus(t, "the engine that did not crash", c, 200)
}

// TestL11AndK06SecretsStayOut looks for an agent's secrets and the authority's
// key in the log, the metrics and a refusal.
func TestL11AndK06SecretsStayOut(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Agents: true, Hosts: map[string]enginetest.Host{
		"allowed.test": {}, "api.openai.com": {}, "denied.test": {Answer: func(c *enginetest.OriginConn, _ enginetest.Seen) { c.Cut() }},
	}})
	fields := []string{"Authorization: Bearer s3cr3t-token", "Cookie: session=s3cr3t-cookie", "X-Api-Key: s3cr3t-key", "Content-Type: application/json"}
	answers := ""
	client := e.ClientAs(t, "s3cr3t-free")
	for _, method := range []string{"POST", "DELETE"} {
		r := e.Do(t, client, method, "allowed.test", "/path?key=s3cr3t-value&s=1&s3cr3t-bare", `{"password":"s3cr3t-body"}`, fields...)
		if method == "DELETE" {
			answers += r.Body + fmt.Sprint(r.Header)
		}
	}
	e.WantRecord(t, enginetest.Fields{"phase": "complete", "path": "/path"})
	e.Stop(t)
	texts := map[string]string{"the log": e.Dump(t), "the metrics": e.MetricsText(t), "a refusal": answers}
	for where, text := range texts {
		for _, secret := range []string{"s3cr3t-token", "s3cr3t-cookie", "s3cr3t-key", "s3cr3t-value", "s3cr3t-bare", "s3cr3t-body", "PRIVATE KEY"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s", where, secret)
			}
		}
	}
	if block, _ := pem.Decode([]byte(texts["the log"])); block != nil {
		t.Errorf("the log has a %s", block.Type)
	}
	if seen := e.Origin("allowed.test").Requests(); len(seen) != 1 || seen[0].Get("Authorization") == "" || !strings.Contains(seen[0].Target, "s3cr3t-value") {
		t.Errorf("the origin is to get them: %q", seen)
	}
}

// TestR05RandomNames asks for names that no rule could allow, and for many that
// one could.
func TestR05RandomNames(t *testing.T) {
	e := enginetest.Start(t, &enginetest.Options{Policy: "- name: wild\n  hosts: [\"*.wild.test\"]\n  ports: [{{ports}}]\n  methods: [GET]\n", Hosts: map[string]enginetest.Host{"x.wild.test": {}}})
	port := e.Origin("x.wild.test").Addr.Port()
	for i := range 50 {
		c := e.RawProxy(t)
		target := fmt.Sprintf("r%d.random.test:%d", i, port)
		c.Send("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
		refused(t, target, c.Reply("GET"), 403, "not_in_allowlist")
		_ = c.Close()
	}
	if s := e.Leaves.Stats(); s.Mints != 0 || len(e.Resolver.Asked()) > 0 {
		t.Errorf("%d leaves were minted and %q looked up for names that no rule could allow", s.Mints, e.Resolver.Asked())
	}
	for i := range 5 {
		for range 3 {
			name := fmt.Sprintf("r%d.wild.test", i)
			c := e.RawConnect(t, fmt.Sprintf("%s:%d", name, port))
			if err := c.StartTLS(name, nil); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
		}
	}
	if s := e.Leaves.Stats(); s.Mints != 5 || s.Size != 5 {
		t.Errorf("%d leaves were minted and %d kept for 5 names", s.Mints, s.Size)
	}
}

// TestR09LabelsAreOurWords looks for an agent's words in the metrics.
func TestR09LabelsAreOurWords(t *testing.T) {
	e := enginetest.Start(t, nil)
	client := e.Client(t)
	for i := range 20 {
		e.Do(t, client, "GET", "allowed.test", fmt.Sprintf("/word-%d", i), "")
		e.Do(t, client, "DELETE", "allowed.test", fmt.Sprintf("/word-%d", i), "")
		_, _ = e.Try(t, client, "GET", "denied.test", "/", "")
	}
	c := e.RawTunnel(t, "allowed.test", nil)
	c.Send(strings.Replace(line(e, "GET", "/"), "GET", "WORD", 1) + "\r\n")
	refused(t, "a method of nobody's", c.Reply("WORD"), 403, "method_not_allowed")
	text := e.MetricsText(t)
	for _, word := range []string{"word-", "WORD", "allowed.test", "denied.test", "127.0.0.1"} {
		if strings.Contains(text, word) {
			t.Errorf("the metrics speak of %q", word)
		}
	}
	if n := strings.Count(text, "\n"); n > 2000 {
		t.Errorf("%d lines", n)
	}
}
