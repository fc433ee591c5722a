package ship

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// collectorServer is an OpenTelemetry collector as far as it is asked for.
type collectorServer struct {
	*receiver
	wrong    []string // guarded by receiver.mu, as are those below
	resource map[string]any
	records  []*logs.LogRecord
}

func newCollectorServer(t *testing.T, faults ...fault) *collectorServer {
	t.Helper()
	c := &collectorServer{receiver: newReceiver(t, faults...)}
	c.take = c.decode
	return c
}

// decode takes a request apart. Called with mu held.
func (c *collectorServer) decode(r *http.Request, body []byte) {
	var req collogs.ExportLogsServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		c.wrong = append(c.wrong, err.Error())
	}
	if r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Method != http.MethodPost {
		c.wrong = append(c.wrong, fmt.Sprint(r.Method, r.URL, r.Header))
	}
	c.lines = nil
	for _, rl := range req.GetResourceLogs() {
		c.resource = flat(rl.GetResource().GetAttributes())
		for _, sl := range rl.GetScopeLogs() {
			c.records = append(c.records, sl.GetLogRecords()...)
		}
	}
	for _, r := range c.records {
		c.lines = append(c.lines, r.GetBody().GetStringValue()+"\n")
	}
}

func flat(attrs []*common.KeyValue) map[string]any {
	out := map[string]any{}
	for _, a := range attrs {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[a.GetKey()] = v.IntValue
		default:
			out[a.GetKey()] = v
		}
	}
	return out
}

func (c *collectorServer) url() string { return "otlp://" + strings.TrimPrefix(c.URL, "http://") }

func TestACollectorGetsEveryRecordAsALogRecord(t *testing.T) {
	// None of the SDK's own variables has a say.
	for k, v := range map[string]string{
		"ENDPOINT": "https://elsewhere.invalid", "INSECURE": "false", "HEADERS": "authorization=evil", "COMPRESSION": "none", "TIMEOUT": "1",
		"CERTIFICATE": "/nowhere", "LOGS_ENDPOINT": "https://elsewhere.invalid/x",
	} {
		t.Setenv("OTEL_EXPORTER_OTLP_"+k, v)
	}
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=evil")
	t.Setenv("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "1")
	t.Setenv("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1")
	t.Setenv("HTTP_PROXY", "http://elsewhere.invalid")

	e, c := newLog(t), newCollectorServer(t)
	_, err := e.Decide(&audit.Record{
		Event: audit.EgressDenied, Phase: audit.PhaseDecision, ID: 0xabc, Agent: &audit.Agent{Namespace: "support", ServiceAccount: "bot", Pod: "bot-1"},
		Scheme: "https", Host: "a\xff.test", Port: 8443, Method: "DELETE", Path: []byte("/x\xfe\n"), Reason: "denied_by_rule", Rule: "no-deletes", StatusCode: 403,
	})
	check(t, err)
	check(t, e.Complete(&audit.Record{Event: audit.EgressError, Phase: audit.PhaseComplete, ID: 1, Reason: "dial_failed"}))
	e.records(t, 1)
	s := start(t, e, Config{
		Sinks: []Target{sinkAt(t, strings.Replace(c.url(), "://", "://tok3n@", 1))}, Identity: "gw/v1",
	})
	c.wantLog(t, e)
	check(t, e.Close())
	check(t, s.Close(t.Context()))
	c.wantLog(t, e)

	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) > 0 || c.headers.Get("Content-Encoding") != "gzip" || c.headers.Get("Authorization") != "Bearer tok3n" ||
		c.headers.Get("User-Agent") != "aegrail-engine/v1" || c.headers.Get("X-Aegrail-Log") != e.SessionID() {
		t.Errorf("%v, %v", c.wrong, c.headers)
	}
	for k, want := range map[string]any{
		"service.name": "aegrail-engine", "service.version": "v1", "service.instance.id": e.SessionID(), "aegrail.identity": "gw/v1",
	} {
		if c.resource[k] != want {
			t.Errorf("%s: %v, want %v", k, c.resource[k], want)
		}
	}
	denied := c.records[1]
	got := flat(denied.GetAttributes())
	for k, want := range map[string]any{
		"seq": int64(2), "event": "egress_denied", "session_id": e.SessionID(), "agent": "support/bot", "namespace": "support", "service_account": "bot",
		"pod": "bot-1", "phase": "decision", "id": "0000000000000abc", "verdict": "denied", "reason": "denied_by_rule", "rule": "no-deletes",
		"scheme": "https", "host": "a\uFFFD.test", "port": int64(8443), "method": "DELETE", "path": "/x\uFFFD\n", "status": int64(403),
	} {
		if got[k] != want {
			t.Errorf("%s: %#v, want %#v", k, got[k], want)
		}
	}
	if at := time.Unix(0, int64(denied.GetTimeUnixNano())); time.Since(at) > time.Hour || denied.GetObservedTimeUnixNano() == 0 {
		t.Error(at)
	}
	for i, want := range []logs.SeverityNumber{9, 13, 17, 9} {
		if c.records[i].GetSeverityNumber() != want {
			t.Errorf("record %d: severity %v, want %v", i+1, c.records[i].GetSeverityNumber(), want)
		}
	}
	if _, is := flat(c.records[0].GetAttributes())["verdict"]; is {
		t.Error("a start of the engine has a verdict")
	}
}

// partly acknowledges a request but for one record.
func partly(_ *receiver, w http.ResponseWriter, _ *http.Request) bool {
	b, _ := proto.Marshal(&collogs.ExportLogsServiceResponse{
		PartialSuccess: &collogs.ExportLogsPartialSuccess{RejectedLogRecords: 1, ErrorMessage: "a record of tok3n is too old"},
	})
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(b)
	return false
}

func TestACollectorOutlastsEveryFaultAndPartIsNotAll(t *testing.T) {
	elsewhere := newReceiver(t)
	e, c := newLog(t), newCollectorServer(t, partly, status(503, "Retry-After", "0"), status(400), reset, hang, status(308, "Location", elsewhere.URL), lose, dribble,
		func(_ *receiver, w http.ResponseWriter, _ *http.Request) bool { // an endless answer
			for range 200 {
				_, _ = w.Write(make([]byte, 1<<10))
			}
			return false
		})
	e.records(t, 600)
	var log said
	s := start(t, e, Config{
		Sinks: []Target{sinkAt(t, strings.Replace(c.url(), "://", "://tok3n@", 1))}, Logger: log.logger(), timeout: 300 * time.Millisecond,
	})
	c.wantLog(t, e)
	if st := s.Sinks()[0]; st.Kind != OTLP || st.Failures < 9 {
		t.Errorf("%+v\n%s", st, log.String())
	}
	if n, _, _, _ := elsewhere.got(); n != 0 {
		t.Error("a redirect was followed")
	}
	if !strings.Contains(log.String(), "took not all of the records") || !strings.Contains(log.String(), "too old") || strings.Contains(log.String(), "tok3n") {
		t.Error(log.String())
	}
}

func TestACollectorOverTLSIsVerified(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
	e := newLog(t)
	c := &collectorServer{receiver: &receiver{stopped: make(chan struct{})}}
	c.take = c.decode
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	c.EnableHTTP2 = true
	c.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	c.StartTLS()
	t.Cleanup(c.Close)
	target := sinkAt(t, strings.Replace(c.URL, "https://", "otlps://", 1))
	s := start(t, e, Config{Sinks: []Target{target}})
	eventually(t, "it fails", func() bool { return s.Sinks()[0].Failures > 0 })
	if st := s.Sinks()[0]; !strings.Contains(st.LastError, "certificate") {
		t.Errorf("%+v", st)
	}
	_ = stop(s)
	roots := x509.NewCertPool()
	roots.AddCert(c.Certificate())
	start(t, e, Config{Sinks: []Target{target}, Roots: roots})
	c.wantLog(t, e)
}

// What comes from the Python library has other fields and no seq.
func TestACollectorGetsRecordsOfTheLibrary(t *testing.T) {
	c := newCollectorServer(t)
	file := "../audit/testdata/stock.jsonl"
	first, last, err := audit.Span(file)
	check(t, err)
	target := sinkAt(t, c.url())
	s := &Shipper{c: quick("", Config{})}
	col, err := newCollector(&target, s.client(), http.Header{}, nil)
	check(t, err)
	var b batch
	err = audit.Follow(t.Context(), file, audit.FollowOptions{Idle: func() error { return errDrained }}, func(e *audit.Entry) error {
		b.add(e)
		return nil
	})
	if !errors.Is(err, errDrained) {
		t.Fatal(err)
	}
	check(t, col.deliver(t.Context(), &b))
	s.clients[0].CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.records) != int(last) || first != 1 || len(c.wrong) > 0 {
		t.Fatalf("%d of %d to %d, %v", len(c.records), first, last, c.wrong)
	}
	for i, r := range c.records {
		if got := flat(r.GetAttributes()); got["seq"] != int64(i+1) || got["event"] == nil {
			t.Errorf("%v", got)
		}
	}
}
