package ship

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// The rules of this file are: the SDK makes and encodes records, and decides
// nothing. Its batch processor drops what does not get out, so records go from
// its logger into a slice, and from there to the exporter, whose error is
// looked at; its retries are off, as they end; and each of its options is given,
// as those that are not come from OTEL_ variables of the environment.

// collector sends batches to an OpenTelemetry collector. Owned by its sink's
// goroutine.
type collector struct {
	exporter *otlploghttp.Exporter
	logger   log.Logger
	emitted  *emitted
	answer   *answerNote
}

// maxRequest is the longest body before compression. A batch is below it: a
// record's fields are in it twice.
const maxRequest = 16 << 20 // 16 MiB

func newCollector(t *Target, client *http.Client, headers http.Header, facts []attribute.KeyValue) (*collector, error) {
	c := &collector{emitted: new(emitted), answer: &answerNote{next: client.Transport}}
	noted := *client
	noted.Transport = c.answer
	flat := map[string]string{}
	for k := range headers {
		flat[k] = headers.Get(k)
	}
	if t.header != "" {
		flat["Authorization"] = t.header
	}
	var err error
	c.exporter, err = otlploghttp.New(context.Background(),
		otlploghttp.WithEndpointURL(t.url.String()),
		otlploghttp.WithTLSClientConfig(nil), // the client has its own
		otlploghttp.WithHTTPClient(&noted),
		otlploghttp.WithHeaders(flat),
		otlploghttp.WithCompression(otlploghttp.GzipCompression),
		otlploghttp.WithTimeout(client.Timeout),
		otlploghttp.WithMaxRequestSize(maxRequest),
		otlploghttp.WithMaxResponseSize(maxAnswer),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: false}),
	)
	if err != nil {
		return nil, err
	}
	c.logger = sdk.NewLoggerProvider(
		sdk.WithResource(resource.NewSchemaless(facts...)),
		sdk.WithProcessor(c.emitted),
		sdk.WithAttributeCountLimit(-1),
		sdk.WithAttributeValueLengthLimit(-1),
	).Logger("aegrail-engine/audit")
	return c, nil
}

func (c *collector) deliver(ctx context.Context, b *batch) error {
	c.emitted.records = c.emitted.records[:0]
	seq := b.first
	err := audit.Read(bytes.NewReader(b.lines), func(e *audit.Entry) error {
		e.Seq = seq // also of one that does not say
		seq++
		c.logger.Emit(ctx, logRecord(e))
		return nil
	})
	if err != nil {
		return err
	}
	*c.answer = answerNote{next: c.answer.next}
	err = c.exporter.Export(ctx, c.emitted.records)
	switch {
	case err == nil:
		return nil
	case c.answer.status == 0:
		return bare(err)
	}
	if err := judge(c.answer.status, c.answer.header); err != nil {
		return err
	}
	// Accepted in part, or an answer that is none. The specification has a
	// client drop what was refused; here nothing counts that is not there.
	return &refusal{text: "took not all of the records: " + err.Error(), permanent: true}
}

// answerNote passes requests on and notes what was answered last, which the
// exporter's errors have as text alone.
type answerNote struct {
	next   http.RoundTripper
	status int
	header http.Header
}

func (a *answerNote) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(r)
	if err == nil {
		a.status, a.header = resp.StatusCode, resp.Header
	}
	return resp, err
}

// emitted is the processor between the SDK's logger and us.
type emitted struct{ records []sdk.Record }

func (e *emitted) Enabled(context.Context, sdk.EnabledParameters) bool { return true }

func (e *emitted) OnEmit(_ context.Context, r *sdk.Record) error {
	e.records = append(e.records, r.Clone())
	return nil
}

func (e *emitted) Shutdown(context.Context) error   { return nil }
func (e *emitted) ForceFlush(context.Context) error { return nil }

// logRecord is e as OpenTelemetry sees it.
func logRecord(e *audit.Entry) log.Record {
	var r log.Record
	r.SetTimestamp(e.Time)
	r.SetObservedTimestamp(time.Now())
	r.SetBody(attribute.StringValue(string(e.Raw)))
	verdict, severity := "", log.SeverityInfo
	switch e.Event {
	case audit.EgressAllowed.String():
		verdict = "allowed"
	case audit.EgressDenied.String():
		verdict, severity = "denied", log.SeverityWarn
	case audit.EgressError.String():
		verdict, severity = "error", log.SeverityError
	}
	r.SetSeverity(severity)
	r.SetSeverityText(severity.String())
	add := func(key, v string) {
		if v != "" { // protobuf takes no other text than UTF-8; the body has the bytes
			r.AddAttributes(attribute.String(key, strings.ToValidUTF8(v, "\uFFFD")))
		}
	}
	number := func(key string, v int64) {
		if v != 0 {
			r.AddAttributes(attribute.Int64(key, v))
		}
	}
	number("seq", int64(e.Seq)) //nolint:gosec // a count of records
	add("event", e.Event)
	add("event_hash", e.Hash)
	add("session_id", e.Session)
	add("agent", e.AgentIdentity)
	add("namespace", e.Namespace)
	add("service_account", e.ServiceAccount)
	add("pod", e.Pod)
	add("id", e.ID)
	add("phase", e.Phase)
	add("verdict", verdict)
	add("reason", e.Reason)
	add("rule", e.Rule)
	add("policy_revision", e.PolicyRevision)
	add("scheme", e.Scheme)
	add("host", e.Host)
	number("port", int64(e.Port))
	add("method", e.Method)
	add("path", e.Path)
	number("status", e.StatusCode)
	number("request_bytes", e.RequestBytes)
	number("response_bytes", e.ResponseBytes)
	number("duration_ms", e.DurationMS)
	number("count", e.Count)
	return r
}
