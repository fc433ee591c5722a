package audit

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a wall clock that only moves when told.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 5, 15, 9, 42, 11, 123e6, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// open opens a log and, at the end of the test, closes it.
func open(t testing.TB, c Config) *Log {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func logFile(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.jsonl") }

// agent is one that Kubernetes vouches for.
func agent(name string) *Agent { return &Agent{Namespace: "support", ServiceAccount: name} }

func decision(id uint64) *Record {
	return &Record{
		Event: EgressAllowed, Phase: PhaseDecision, ID: id, Agent: agent("bot"),
		Scheme: "https", Host: "api.example.com", Port: 443, Method: "POST", Path: []byte("/v1/messages"),
		Rule: "model", PolicyRevision: "sha256:0123456789ab", Kind: "connect", Mitm: true, Attempt: 1,
		Client: netip.MustParseAddrPort("10.0.0.7:41234"),
	}
}

func completion(id uint64) *Record {
	r := decision(id)
	r.Phase, r.StatusCode, r.RequestBytes, r.ResponseBytes = PhaseComplete, 200, 17, 1024
	r.RequestSHA256 = bytes.Repeat([]byte("a"), 64)
	r.ResponseSHA256 = bytes.Repeat([]byte("b"), 64)
	r.Upstream = netip.MustParseAddrPort("203.0.113.9:443")
	r.TLSVersion, r.ALPN, r.UpstreamProto = "1.3", "http/1.1", "http/1.1"
	r.Duration = 42 * time.Millisecond
	return r
}

func denial(agent *Agent, reason string) *Record {
	return &Record{Event: EgressDenied, Phase: PhaseDecision, Agent: agent, Host: "evil.example", Reason: reason}
}

func mustDecide(t testing.TB, l *Log, id uint64) Receipt {
	t.Helper()
	rc, err := l.Decide(decision(id))
	if err != nil {
		t.Fatal(err)
	}
	if !rc.Covers(id) || rc.Seq() == 0 || rc.Attempt() != 1 {
		t.Fatalf("receipt %+v does not cover request %d", rc, id)
	}
	return rc
}

// noReceipt asserts that a request is not to be forwarded.
func noReceipt(t testing.TB, l *Log, id uint64) error {
	t.Helper()
	rc, err := l.Decide(decision(id))
	if err == nil {
		t.Fatal("Decide took a record that it could not commit")
	}
	if rc != (Receipt{}) || rc.Covers(id) || rc.Covers(0) {
		t.Fatalf("a failed Decide gave the receipt %+v", rc)
	}
	return err
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// verified asserts that files verify as one log.
func verified(t testing.TB, files ...string) Report {
	t.Helper()
	rep, err := Verify(files, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// damaged asserts that Verify finds damage with these words.
func damaged(t testing.TB, what string, line int64, files ...string) {
	t.Helper()
	_, err := Verify(files, VerifyOptions{})
	var d *Damage
	if !errors.As(err, &d) || d.Line != line || !strings.Contains(d.What, what) {
		t.Fatalf("got %v, want damage at line %d: %s", err, line, what)
	}
}

func entries(t testing.TB, file string) []Entry {
	t.Helper()
	var all []Entry
	err := Read(bytes.NewReader(contents(t, file)), func(e *Entry) error {
		c := *e
		c.Raw = bytes.Clone(e.Raw)
		c.QueryKeys = append([]string(nil), e.QueryKeys...)
		all = append(all, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func contents(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, file string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func wantErr(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error %q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Fatalf("error %q is more than one line", err)
	}
}
