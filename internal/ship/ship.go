package ship

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

// Config says what is shipped and where.
type Config struct {
	Log     string // the log's active file; needed for sinks
	Anchors []Target
	Sinks   []Target

	// Roots are what https:// and otlps:// servers are verified against; nil:
	// the system's. Host names are always verified.
	Roots *x509.CertPool

	// Dial connects to receivers, and finds their names; nil: as the system does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Identity string       // of the engine, for receivers
	Version  string       // of the engine, for receivers
	Logger   *slog.Logger // nil: silent

	pace    pace          // zero: firstRetry to mostRetry
	timeout time.Duration // of a request; 0: requestTimeout
	linger  time.Duration // 0: linger
}

// Shipper ships one log. Its methods may be called from any goroutine.
type Shipper struct {
	c       Config
	anchors []*anchor
	sinks   []*sink

	clients []*http.Client
	cancel  context.CancelFunc // nil before Start
	closing chan struct{}
	once    sync.Once
}

// New checks everything that can be wrong before the log is opened: anchor
// files, positions of sinks. It starts nothing and connects nowhere. A Config
// without anchors and sinks makes a Shipper that does nothing.
func New(c Config) (*Shipper, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.pace == (pace{}) {
		c.pace = pace{first: firstRetry, most: mostRetry}
	}
	s := &Shipper{c: c, closing: make(chan struct{})}
	seen := map[string]bool{}
	for i, t := range c.Anchors {
		if t.kind != File && t.kind != HTTP || seen[t.String()+t.url.Path] {
			return nil, fmt.Errorf("anchor %s: not an anchor, or given twice", &t)
		}
		seen[t.String()+t.url.Path] = true
		if err := s.addAnchor(i, t); err != nil {
			return nil, err
		}
	}
	for i, t := range c.Sinks {
		switch {
		case t.kind != OTLP && t.kind != Webhook:
			return nil, fmt.Errorf("sink %s: not a sink", &t)
		case c.Log == "":
			return nil, fmt.Errorf("sink %s: a sink reads the log's file: give --audit-file", &t)
		case seen[t.id()]:
			return nil, fmt.Errorf("sink %s: given twice; each sink needs an address of its own", &t)
		}
		seen[t.id()] = true
		if err := s.addSink(i, t); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Shipper) addAnchor(i int, t Target) error {
	logger := s.c.Logger.With("anchor", i+1, "to", t.String())
	a := &anchor{target: t, pace: s.c.pace, wake: make(chan struct{}, 1), closing: s.closing, done: make(chan struct{})}
	a.trouble = trouble{
		logger: logger, target: &a.target,
		bad: "an anchor takes no checkpoints of the audit log", again: "the anchor takes checkpoints again",
	}
	if t.kind == File {
		if same(t.file, s.c.Log) {
			return fmt.Errorf("anchor %s: this is the log itself; an anchor is a file elsewhere", t.file)
		}
		f := &fileAnchor{name: t.file, logger: logger}
		a.deliver = f.deliver
		s.anchors = append(s.anchors, a)
		return f.check()
	}
	s.warn(logger, &t)
	s.anchors = append(s.anchors, a)
	return nil
}

func same(a, b string) bool {
	a, aerr := filepath.Abs(a)
	b, berr := filepath.Abs(b)
	return aerr == nil && berr == nil && a == b
}

func (s *Shipper) addSink(i int, t Target) error {
	logger := s.c.Logger.With("sink", i+1, "to", t.String())
	k := &sink{
		target: t, log: s.c.Log, position: positionFile(s.c.Log, &t), pace: s.c.pace, linger: cmp.Or(s.c.linger, linger), logger: logger,
		closing: s.closing, done: make(chan struct{}),
	}
	k.trouble = trouble{
		logger: logger, target: &k.target,
		bad: "a sink takes no records of the audit log; they wait in its file", again: "the sink takes records again",
	}
	acked, err := checkPosition(k.log, k.position)
	if err != nil {
		return fmt.Errorf("sink %s: %w", &t, err)
	}
	k.acked.Store(acked)
	k.stored.Store(acked)
	s.warn(logger, &t)
	s.sinks = append(s.sinks, k)
	return nil
}

func (s *Shipper) warn(logger *slog.Logger, t *Target) {
	if t.inClear() {
		logger.Warn("credentials go over the network unencrypted; use https:// or otlps://")
	}
}

// Start begins to ship the log of session. state is Stats of the log.
// It is called once, when the log is open.
func (s *Shipper) Start(session string, state func() audit.Stats) error {
	headers := http.Header{}
	headers.Set("User-Agent", "aegrail-engine/"+s.c.Version)
	headers.Set("X-Aegrail-Log", session)
	for _, a := range s.anchors {
		if a.target.kind == HTTP {
			a.deliver = (&httpAnchor{target: &a.target, client: s.client(), headers: headers}).deliver
		}
	}
	for _, k := range s.sinks {
		k.state = state
		if k.target.kind == Webhook {
			k.deliver = (&webhook{target: &k.target, client: s.client(), headers: headers}).deliver
			continue
		}
		c, err := newCollector(&k.target, s.client(), headers, []attribute.KeyValue{
			attribute.String("service.name", "aegrail-engine"), attribute.String("service.version", s.c.Version),
			attribute.String("service.instance.id", session), attribute.String("aegrail.identity", s.c.Identity),
		})
		if err != nil {
			return fmt.Errorf("sink %s: %w", &k.target, err)
		}
		k.deliver = c.deliver
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, a := range s.anchors {
		go a.run(ctx)
	}
	for _, k := range s.sinks {
		go k.run(ctx)
	}
	return nil
}

// client makes a client of its own for each receiver: one that hangs keeps no
// other waiting for a connection.
func (s *Shipper) client() *http.Client {
	c := newClient(s.c)
	s.clients = append(s.clients, c)
	return c
}

// Publish hands a checkpoint of the first size records to every anchor. It
// never blocks, and may be called before Start.
func (s *Shipper) Publish(size uint64, note []byte) {
	c := pending{size: size, note: append([]byte(nil), note...)}
	for _, a := range s.anchors {
		a.publish(c)
	}
}

// Removable returns the seq up to which every record is anchored and shipped:
// every anchor has a checkpoint that covers it, and every sink has it and has
// written that down. Without an anchor, or without a sink, that is none.
func (s *Shipper) Removable() uint64 {
	if len(s.anchors) == 0 || len(s.sinks) == 0 {
		return 0
	}
	low := uint64(math.MaxUint64)
	for _, a := range s.anchors {
		low = min(low, a.acked.Load())
	}
	for _, k := range s.sinks {
		low = min(low, k.stored.Load())
	}
	return low
}

// Stats is where one anchor or sink is, and what it counted since Start.
type Stats struct {
	Kind         Kind
	Acknowledged uint64 // anchor: records that the newest checkpoint there covers; sink: seq of the last record there
	Lag          uint64 // sink: records that it does not have
	Attempts     uint64
	Failures     uint64
	LastError    string // of the last attempt, in one line, without credentials; "" if that worked
}

// Anchors returns where the anchors are, in the order of Config.
func (s *Shipper) Anchors() []Stats {
	out := make([]Stats, len(s.anchors))
	for i, a := range s.anchors {
		out[i] = Stats{Kind: a.target.kind, Acknowledged: a.acked.Load()}
		out[i].Attempts, out[i].Failures, out[i].LastError = a.trouble.counts()
	}
	return out
}

// Sinks returns where the sinks are, in the order of Config.
func (s *Shipper) Sinks() []Stats {
	out := make([]Stats, len(s.sinks))
	for i, k := range s.sinks {
		out[i] = Stats{Kind: k.target.kind, Acknowledged: k.acked.Load(), Lag: k.lag()}
		out[i].Attempts, out[i].Failures, out[i].LastError = k.trouble.counts()
	}
	return out
}

// Close brings what is still to be brought until ctx ends, and stops. It is
// called when the log is closed. The error says what was not brought: records
// wait in the log's file for the next start, a checkpoint is in the log.
func (s *Shipper) Close(ctx context.Context) error {
	if s.cancel == nil {
		return nil
	}
	s.once.Do(func() { close(s.closing) })
	defer s.cancel()
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	var errs []error
	for _, a := range s.anchors {
		wait(ctx, a.done)
		errs = append(errs, a.lost())
	}
	for _, k := range s.sinks {
		wait(ctx, k.done)
		errs = append(errs, k.lost())
	}
	for _, c := range s.clients {
		c.CloseIdleConnections()
	}
	return errors.Join(errs...)
}

// wait waits for done: until ctx ends, and then a moment for who was told so.
func wait(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
		pause(context.WithoutCancel(ctx), grace, done)
	}
}
