// Package metrics counts what the engine does, for Prometheus.
//
// Requests are counted from finished audit records and from nothing else, so
// that the numbers and the log cannot differ. Handshakes, connections and
// reloads, which are no requests, are told to it. What other packages
// count themselves (the log, the leaf cache) is asked for at each scrape.
//
// No label holds a byte that came from an agent or a server (ATTACKS R9): a
// label is one of the words listed in this package or the engine's own version
// and policy revision; everything else is "other". So the number of series has
// a bound, whatever is asked for.
//
//	aegrail_requests_total{verdict,reason,method}   allowed, observed, denied, error
//	aegrail_request_bytes_total, aegrail_response_bytes_total
//	aegrail_decision_seconds, aegrail_upstream_seconds, aegrail_added_seconds
//	aegrail_handshakes_total{outcome}               TLS with clients
//	aegrail_connections{kind}, aegrail_streams{kind}
//	aegrail_leaf_cache_hits_total, …_misses_total, …_mints_total, aegrail_leaf_cache_size
//	aegrail_audit_pending, aegrail_audit_commit_seconds, aegrail_audit_records_total
//	aegrail_audit_failures_total{cause}, aegrail_audit_failing{cause}    no_room, io_error, file_lost
//	aegrail_audit_copy_dropped_total, aegrail_audit_seq, aegrail_audit_checkpoint_size
//	aegrail_audit_rotations_total, aegrail_audit_rotation_failures_total
//	aegrail_audit_anchor_acknowledged_size{kind,index}, …_failures_total
//	aegrail_audit_sink_acknowledged_seq{kind,index}, …_lag_records, …_failures_total
//	aegrail_policy_info{revision}, aegrail_policy_reloads_total{result}
//	aegrail_ca_expires_timestamp_seconds, aegrail_ca_reloads_total{result}
//	aegrail_control_connected                       1 while aegrail-control is there; absent: nobody is followed
//	aegrail_engine_enforced                         0: an agent that ignores its proxy variables goes around; absent: nobody has said
//	aegrail_build_info{version,goversion}
package metrics

import (
	"errors"
	"math"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// LeafStats is what the leaf cache counted since it was made, and its size now.
type LeafStats struct {
	Hits, Misses, Mints uint64
	Size                int
}

// ShipStats is where one anchor or sink of the audit log is, and what it
// counted since it was made.
type ShipStats struct {
	Kind         string // file, http, otlp or webhook
	Acknowledged uint64 // anchor: records covered; sink: number of the last record
	Lag          uint64 // sink: records that it does not have yet
	Failures     uint64
}

// Config is what metrics are about.
type Config struct {
	Version string             // of the engine, for aegrail_build_info
	Audit   func() audit.Stats // required: (*audit.Log).Stats
	Leaves  func() LeafStats   // nil: no leaf cache
	Anchors func() []ShipStats // nil: the log has no anchors; the label index is the place from 1
	Sinks   func() []ShipStats // nil: the log has no sinks; likewise

	// Control is whether aegrail-control is followed.
	Control bool
	// Enforced says whether agents have a way around the engine; nil: nobody has said.
	Enforced *bool
}

// Metrics is the counters. Its methods may be called from any goroutine, and
// those that take part in a request allocate nothing once a combination of
// labels was seen.
type Metrics struct {
	registry *prometheus.Registry

	requests      *prometheus.CounterVec
	request       [verdicts][]atomic.Pointer[resolved] // :: verdict → reason×method → its counter, made when first used
	reasons       map[string]int                       // :: word → index in reasonWords
	requestBytes  prometheus.Counter
	responseBytes prometheus.Counter

	decision, upstream, added prometheus.Histogram

	handshakes  [handshakeOutcomes]prometheus.Counter
	connections [len(kinds)]prometheus.Gauge
	streams     [len(streamWords)]prometheus.Gauge

	policyInfo       *prometheus.GaugeVec
	loaded, rejected prometheus.Counter

	control              prometheus.Gauge // nil: nobody is followed
	caExpires            prometheus.Gauge
	caLoaded, caRejected prometheus.Counter
}

// resolved is a counter behind its labels.
type resolved struct{ prometheus.Counter }

// New makes the counters in a registry of their own.
func New(c Config) (*Metrics, error) {
	if c.Audit == nil {
		return nil, errors.New("metrics: must be given the audit log's Stats")
	}
	m := &Metrics{registry: prometheus.NewRegistry(), reasons: map[string]int{}}
	for i, w := range reasonWords {
		m.reasons[w] = i
	}
	for v := range m.request {
		m.request[v] = make([]atomic.Pointer[resolved], len(reasonWords)*int(methodClasses))
	}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "aegrail_requests_total", Help: "Finished requests by verdict, reason and class of method.",
	}, []string{"verdict", "reason", "method"})
	m.registry.MustRegister(m.requests)

	m.requestBytes = m.counter("aegrail_request_bytes_total", "Bytes of request bodies that were forwarded.", nil)
	m.responseBytes = m.counter("aegrail_response_bytes_total", "Bytes of response bodies that were passed on.", nil)
	m.decision = m.histogram("aegrail_decision_seconds", "Time from a whole head to a verdict.",
		1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 10e-3)
	m.upstream = m.histogram("aegrail_upstream_seconds", "Time from the first byte sent to the head of the answer.",
		1e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10, 30, 60)
	m.added = m.histogram("aegrail_added_seconds", "Time that the engine added to a request.",
		25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 100e-3, 1)
	for i, w := range handshakeWords {
		m.handshakes[i] = m.counter("aegrail_handshakes_total", "TLS handshakes with clients by outcome.", prometheus.Labels{"outcome": w})
	}
	for i, w := range kinds {
		m.connections[i] = m.gauge("aegrail_connections", "Open client connections by the way they came in.", prometheus.Labels{"kind": w})
	}
	for i, w := range streamWords {
		m.streams[i] = m.gauge("aegrail_streams", "Requests and tunnels in progress.", prometheus.Labels{"kind": w})
	}
	m.policyInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "aegrail_policy_info", Help: "The policy revision in force; always 1.",
	}, []string{"revision"})
	m.registry.MustRegister(m.policyInfo)
	m.loaded = m.counter("aegrail_policy_reloads_total", "Policies that were loaded, by result.", prometheus.Labels{"result": "success"})
	m.rejected = m.counter("aegrail_policy_reloads_total", "Policies that were loaded, by result.", prometheus.Labels{"result": "failure"})
	m.caExpires = m.gauge("aegrail_ca_expires_timestamp_seconds",
		"When the certificate authority in force can sign no more, in seconds since 1970: the earliest expiry from the signer up to its root. NaN: there is none.", nil)
	m.caLoaded = m.counter("aegrail_ca_reloads_total", "Certificate authorities that were loaded, by result.", prometheus.Labels{"result": "success"})
	m.caRejected = m.counter("aegrail_ca_reloads_total", "Certificate authorities that were loaded, by result.", prometheus.Labels{"result": "failure"})
	if c.Control {
		m.control = m.gauge("aegrail_control_connected", "1 while aegrail-control is there; 0: it is away, and what it said last is in force.", nil)
	}
	if c.Enforced != nil {
		enforced := m.gauge("aegrail_engine_enforced",
			"1 if agents have no way but the engine (redirect rules or a NetworkPolicy, as the operator says); 0: NOT ENFORCED, an agent that ignores its proxy variables goes around it.", nil)
		if *c.Enforced {
			enforced.Set(1)
		}
	}
	m.gauge("aegrail_build_info", "The engine's version; always 1.",
		prometheus.Labels{"version": c.Version, "goversion": runtime.Version()}).Set(1)
	m.registry.MustRegister(newAsked(c), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m, nil
}

func (m *Metrics) counter(name, help string, labels prometheus.Labels) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gauge(name, help string, labels prometheus.Labels) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) histogram(name, help string, buckets ...float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

// Handler answers /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Registry is where the metrics live, for tests and for more of them.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Observe counts a finished record: a completion, or a refusal. Decisions to
// forward and the engine's own records are not finished and not counted. A
// refusal is to be observed each time, also when the log only counts it.
func (m *Metrics) Observe(r *audit.Record) {
	v, ok := verdictOf(r)
	if !ok {
		return
	}
	reason := noReason
	if r.Reason != "" { // most have none
		if reason, ok = m.reasons[r.Reason]; !ok {
			reason = otherReason
		}
	}
	method := classOf(r.Method)
	slot := &m.request[v][reason*int(methodClasses)+int(method)]
	c := slot.Load()
	if c == nil { // the same counter whoever comes first
		c = &resolved{m.requests.WithLabelValues(verdictWords[v], reasonWords[reason], methodWords[method])}
		slot.Store(c)
	}
	if r.Count > 1 {
		c.Add(float64(r.Count))
	} else {
		c.Inc()
	}
	if r.RequestBytes > 0 {
		m.requestBytes.Add(float64(r.RequestBytes))
	}
	if r.ResponseBytes > 0 {
		m.responseBytes.Add(float64(r.ResponseBytes))
	}
	observe(m.decision, r.DecisionTime)
	observe(m.upstream, r.UpstreamTime)
	observe(m.added, r.AddedTime)
}

// observe leaves out what was not measured.
func observe(h prometheus.Histogram, d time.Duration) {
	if d > 0 {
		h.Observe(d.Seconds())
	}
}

// Handshake counts a TLS handshake with a client.
func (m *Metrics) Handshake(h Handshake) {
	if h >= handshakeOutcomes {
		h = HandshakeFailed
	}
	m.handshakes[h].Inc()
}

// Connection returns the gauge of client connections that came in one way:
// connect, plain or transparent. Any other word is "other".
func (m *Metrics) Connection(kind string) prometheus.Gauge {
	for i, w := range kinds {
		if w == kind {
			return m.connections[i]
		}
	}
	return m.connections[len(kinds)-1]
}

// Stream returns the gauge of requests in progress of a kind.
func (m *Metrics) Stream(s Stream) prometheus.Gauge {
	if int(s) >= len(m.streams) {
		s = Exchange
	}
	return m.streams[s]
}

// PolicyLoaded says that the policy of this revision is now in force.
func (m *Metrics) PolicyLoaded(revision string) {
	m.loaded.Inc()
	m.policyInfo.Reset()
	m.policyInfo.WithLabelValues(revision).Set(1)
}

// PolicyRejected says that a policy did not load and the last good one stays.
func (m *Metrics) PolicyRejected() { m.rejected.Inc() }

// CALoaded says that the certificate authority now in force signs until expires.
func (m *Metrics) CALoaded(expires time.Time) {
	m.caLoaded.Inc()
	m.caExpires.Set(float64(expires.Unix()))
}

// CAWithdrawn says that there is no certificate authority. The expiry is then
// NaN, which is neither near nor far for an alert.
func (m *Metrics) CAWithdrawn() { m.caExpires.Set(math.NaN()) }

// Control says whether aegrail-control is there. Without Config.Control nobody
// is told.
func (m *Metrics) Control(there bool) {
	if m.control == nil {
		return
	}
	m.control.Set(0)
	if there {
		m.control.Set(1)
	}
}

// CARejected says that an authority did not load and the last good one stays,
// with its expiry.
func (m *Metrics) CARejected() { m.caRejected.Inc() }
