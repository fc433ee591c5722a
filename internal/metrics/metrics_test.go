package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

func newMetrics(t *testing.T) (*Metrics, *audit.Log) {
	t.Helper()
	l, err := audit.Open(audit.Config{Stdout: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	m, err := New(Config{Version: "v1", Audit: l.Stats, Leaves: func() LeafStats { return LeafStats{Hits: 5, Misses: 4, Mints: 3, Size: 2} }})
	if err != nil {
		t.Fatal(err)
	}
	return m, l
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLines(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(got, "\n"+l+"\n") {
			t.Errorf("no line %q", l)
		}
	}
}

func done(method, reason string) *audit.Record {
	return &audit.Record{
		Event: audit.EgressAllowed, Phase: audit.PhaseComplete, Method: method, Reason: reason, RequestBytes: 10, ResponseBytes: 20,
		DecisionTime: 3 * time.Microsecond, UpstreamTime: 30 * time.Millisecond, AddedTime: 60 * time.Microsecond,
	}
}

func TestRequestsAreCountedOnceWhenTheyAreFinished(t *testing.T) {
	m, _ := newMetrics(t)
	m.Observe(&audit.Record{Event: audit.EgressAllowed, Phase: audit.PhaseDecision, Method: "GET"})
	m.Observe(&audit.Record{Event: audit.EgressError, Phase: audit.PhaseDecision, Method: "GET"})
	m.Observe(&audit.Record{Event: audit.EngineStart})
	m.Observe(done("GET", ""))
	m.Observe(done("HEAD", ""))
	seen := done("POST", "")
	seen.Observed = true
	m.Observe(seen)
	m.Observe(&audit.Record{Event: audit.EgressDenied, Phase: audit.PhaseDecision, Method: "DELETE", Reason: "method_not_allowed"})
	m.Observe(&audit.Record{Event: audit.EgressDenied, Reason: "bad_client_hello", Count: 7})
	m.Observe(&audit.Record{Event: audit.EgressError, Phase: audit.PhaseComplete, Method: "CONNECT", Reason: "upstream_timeout"})
	wantLines(t, scrape(t, m),
		`aegrail_requests_total{method="read",reason="none",verdict="allowed"} 2`,
		`aegrail_requests_total{method="write",reason="none",verdict="observed"} 1`,
		`aegrail_requests_total{method="delete",reason="method_not_allowed",verdict="denied"} 1`,
		`aegrail_requests_total{method="none",reason="bad_client_hello",verdict="denied"} 7`,
		`aegrail_requests_total{method="connect",reason="upstream_timeout",verdict="error"} 1`,
		`aegrail_request_bytes_total 30`,
		`aegrail_response_bytes_total 60`,
		`aegrail_decision_seconds_count 3`,
		`aegrail_upstream_seconds_bucket{le="0.05"} 3`,
		`aegrail_added_seconds_bucket{le="5e-05"} 0`,
	)
	if n := testutil.CollectAndCount(m.requests); n != 5 {
		t.Fatalf("%d series, want 5", n)
	}
}

func TestR09LabelsAreOurOwnWords(t *testing.T) {
	m, _ := newMetrics(t)
	for _, s := range []string{"evil.example", "/path", "\xff\x00", `"} 1`, strings.Repeat("x", 1000), "BREW", "get"} {
		r := done(s, s)
		r.Host, r.Path, r.Rule, r.Policy, r.Kind = s, []byte(s), s, s, s
		m.Observe(r)
		m.Observe(&audit.Record{Event: audit.EgressDenied, Method: s, Reason: s})
		m.Connection(s).Inc()
	}
	m.Handshake(200)
	m.Stream(200).Inc()
	out := scrape(t, m)
	wantLines(t, out,
		`aegrail_requests_total{method="other",reason="other",verdict="allowed"} 7`,
		`aegrail_requests_total{method="other",reason="other",verdict="denied"} 7`,
		`aegrail_connections{kind="other"} 7`,
		`aegrail_handshakes_total{outcome="failed"} 1`,
		`aegrail_streams{kind="exchange"} 1`,
	)
	if strings.Contains(out, "evil") || strings.Contains(out, "BREW") || strings.Contains(out, "xxx") {
		t.Fatalf("a label from outside:\n%s", out)
	}
}

func TestWordsAreUnique(t *testing.T) {
	m, _ := newMetrics(t)
	if len(m.reasons) != len(reasonWords) ||
		reasonWords[otherReason] != "other" {
		t.Fatalf("%d words, %d of them different", len(reasonWords), len(m.reasons))
	}
	for _, method := range []string{"", "GET", "PUT", "DELETE", "CONNECT", "X"} {
		if methodWords[classOf(method)] == "" {
			t.Errorf("method %q has no class", method)
		}
	}
	for i, w := range handshakeWords {
		if w == "" {
			t.Errorf("handshake outcome %d has no word", i)
		}
	}
}

func TestWhatIsToldAndWhatIsAsked(t *testing.T) {
	m, l := newMetrics(t)
	m.Handshake(HandshakeFull)
	m.Handshake(HandshakeResumed)
	m.Handshake(HandshakeClientRejected)
	m.Connection("transparent").Inc()
	m.Connection("plain").Inc()
	m.Connection("plain").Dec()
	m.Stream(WebSocket).Inc()
	m.PolicyLoaded("sha256:aaa")
	m.PolicyLoaded("sha256:bbb")
	m.PolicyRejected()
	m.CALoaded(time.Unix(1_900_000_000, 0))
	m.CARejected()
	if _, err := l.Decide(&audit.Record{Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: 1}); err != nil {
		t.Fatal(err)
	}
	out := scrape(t, m)
	wantLines(t, out,
		`aegrail_handshakes_total{outcome="full"} 1`,
		`aegrail_handshakes_total{outcome="resumed"} 1`,
		`aegrail_handshakes_total{outcome="client_rejected_certificate"} 1`,
		`aegrail_handshakes_total{outcome="timeout"} 0`,
		`aegrail_connections{kind="transparent"} 1`,
		`aegrail_connections{kind="plain"} 0`,
		`aegrail_streams{kind="websocket"} 1`,
		`aegrail_policy_info{revision="sha256:bbb"} 1`,
		`aegrail_policy_reloads_total{result="success"} 2`,
		`aegrail_policy_reloads_total{result="failure"} 1`,
		`aegrail_ca_expires_timestamp_seconds 1.9e+09`,
		`aegrail_ca_reloads_total{result="success"} 1`,
		`aegrail_ca_reloads_total{result="failure"} 1`,
		`aegrail_leaf_cache_hits_total 5`,
		`aegrail_leaf_cache_misses_total 4`,
		`aegrail_leaf_cache_mints_total 3`,
		`aegrail_leaf_cache_size 2`,
		`aegrail_audit_seq 2`,
		`aegrail_audit_records_total 2`,
		`aegrail_audit_failures_total{cause="no_room"} 0`,
		`aegrail_audit_failing{cause="io_error"} 0`,
		`aegrail_audit_rotations_total 0`,
		`aegrail_audit_rotation_failures_total 0`,
		`aegrail_audit_pending 0`,
		`aegrail_audit_commit_seconds_count 2`,
	)
	if strings.Contains(out, "sha256:aaa") {
		t.Error("two policy revisions in force")
	}
	if !strings.Contains(out, `aegrail_build_info{goversion="go`) || !strings.Contains(out, `version="v1"} 1`) {
		t.Error("no build info")
	}
	if problems, err := testutil.GatherAndLint(m.Registry()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestALogThatFailsNamesTheCause(t *testing.T) {
	s := audit.Stats{Failing: audit.FileLost, Checkpoint: 7, Rotations: 2, RotationFailures: 1}
	s.Failures[audit.NoRoom], s.Failures[audit.FileLost] = 3, 1
	m, err := New(Config{Audit: func() audit.Stats { return s }})
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, scrape(t, m),
		`aegrail_audit_failures_total{cause="no_room"} 3`,
		`aegrail_audit_failures_total{cause="io_error"} 0`,
		`aegrail_audit_failures_total{cause="file_lost"} 1`,
		`aegrail_audit_failing{cause="no_room"} 0`,
		`aegrail_audit_failing{cause="file_lost"} 1`,
		`aegrail_audit_checkpoint_size 7`,
		`aegrail_audit_rotations_total 2`,
		`aegrail_audit_rotation_failures_total 1`,
	)
}

func TestAnchorsAndSinksAreAskedByTheirPlace(t *testing.T) {
	m, err := New(Config{
		Audit: func() audit.Stats { return audit.Stats{} },
		Anchors: func() []ShipStats {
			return []ShipStats{{Kind: "file", Acknowledged: 7}, {Kind: "http", Acknowledged: 5, Failures: 2}}
		},
		Sinks: func() []ShipStats {
			return []ShipStats{{Kind: "otlp", Acknowledged: 9, Lag: 1, Failures: 3}, {Kind: "https://evil.example/"}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	out := scrape(t, m)
	wantLines(t, out,
		`aegrail_audit_anchor_acknowledged_size{index="1",kind="file"} 7`,
		`aegrail_audit_anchor_acknowledged_size{index="2",kind="http"} 5`,
		`aegrail_audit_anchor_failures_total{index="2",kind="http"} 2`,
		`aegrail_audit_sink_acknowledged_seq{index="1",kind="otlp"} 9`,
		`aegrail_audit_sink_lag_records{index="1",kind="otlp"} 1`,
		`aegrail_audit_sink_failures_total{index="1",kind="otlp"} 3`,
		`aegrail_audit_sink_lag_records{index="2",kind="other"} 0`,
	)
	if strings.Contains(out, "evil") {
		t.Error("a label from outside")
	}
	if problems, err := testutil.GatherAndLint(m.Registry()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestEnforcementIsSaidWhereSomebodyKnows(t *testing.T) {
	no, yes := false, true
	for want, enforced := range map[string]*bool{"aegrail_engine_enforced 0\n": &no, "aegrail_engine_enforced 1\n": &yes, "": nil} {
		m, err := New(Config{Audit: func() audit.Stats { return audit.Stats{} }, Enforced: enforced})
		if err != nil {
			t.Fatal(err)
		}
		if out := scrape(t, m); !strings.Contains(out, want) || want == "" && strings.Contains(out, "enforced") {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestControlAndItsAuthorityAreSaidWhereOneIsFollowed(t *testing.T) {
	m, err := New(Config{Audit: func() audit.Stats { return audit.Stats{} }, Control: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"at the start", func() { m.CAWithdrawn() }, "aegrail_control_connected 0\n"},
		{"without an authority", func() {}, "aegrail_ca_expires_timestamp_seconds NaN\n"},
		{"when it is there", func() { m.Control(true) }, "aegrail_control_connected 1\n"},
		{"with an authority", func() { m.CALoaded(time.Unix(1_900_000_000, 0)) }, "aegrail_ca_expires_timestamp_seconds 1.9e+09\n"},
		{"when it is away", func() { m.Control(false) }, "aegrail_control_connected 0\n"},
	} {
		step.do()
		if out := scrape(t, m); !strings.Contains(out, step.want) {
			t.Errorf("%s: no %q in\n%s", step.what, step.want, out)
		}
	}
	alone, _ := newMetrics(t)
	alone.Control(true) // nobody is followed
	if out := scrape(t, alone); strings.Contains(out, "control_connected") {
		t.Error("said without a control")
	}
}

func TestMetricsNeedALog(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Fatal("made without a log")
	}
	m, err := New(Config{Audit: func() audit.Stats { return audit.Stats{} }})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(scrape(t, m), "leaf_cache") {
		t.Fatal("a leaf cache that is not there")
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	m, _ := newMetrics(t)
	r := done("POST", "")
	if n := testing.AllocsPerRun(100, func() { m.Observe(r) }); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	m, err := New(Config{Audit: func() audit.Stats { return audit.Stats{} }})
	if err != nil {
		b.Fatal(err)
	}
	r := done("POST", "")
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r)
	}
}
