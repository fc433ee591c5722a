package ship

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/checkpoint"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !enginetest.Eventually(cond) {
		t.Fatalf("it did not come to it that %s", what)
	}
}

// engine is a log that is being written.
type engine struct {
	*audit.Log
	file string
	next uint64
}

func openLog(t testing.TB, file string, c audit.Config) *engine {
	t.Helper()
	c.File = file
	l, err := audit.Open(c)
	check(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return &engine{Log: l, file: file}
}

func newLog(t testing.TB) *engine { return openLog(t, logFile(t), audit.Config{}) }

func logFile(t testing.TB) string { return filepath.Join(t.TempDir(), "audit.log") }

// records writes n decisions.
func (e *engine) records(t testing.TB, n int) {
	t.Helper()
	for range n {
		e.next++
		_, err := e.Decide(&audit.Record{
			Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: e.next, Agent: &audit.Agent{Namespace: "support", ServiceAccount: "bot"},
			Scheme: "https", Host: "api.example.com", Port: 443, Method: "POST", Path: []byte("/v1/messages"), Rule: "model",
		})
		check(t, err)
	}
}

func (e *engine) committed() uint64 { return e.Stats().Seq }

func (e *engine) lines(t testing.TB) []string {
	t.Helper()
	var all []string
	segments, err := audit.Segments(e.file)
	check(t, err)
	for _, name := range append(segments, audit.Segment{Name: e.file}) {
		b, err := os.ReadFile(name.Name)
		check(t, err)
		all = append(all, strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")...)
		all[len(all)-1] += "\n"
	}
	return all
}

// start makes a shipper of the engine's log and starts it. It is closed at the
// end of the test.
func start(t testing.TB, e *engine, c Config) *Shipper {
	t.Helper()
	s := prepare(t, e.file, c)
	check(t, s.Start(e.SessionID(), e.Stats))
	t.Cleanup(func() { stop(s) })
	return s
}

func prepare(t testing.TB, file string, c Config) *Shipper {
	t.Helper()
	s, err := New(quick(file, c))
	check(t, err)
	return s
}

// quick makes c try again at once.
func quick(file string, c Config) Config {
	c.Log = file
	c.pace = pace{first: time.Millisecond, most: 4 * time.Millisecond}
	if c.timeout == 0 {
		c.timeout = 10 * time.Second
	}
	c.linger = time.Millisecond
	c.Version = "v1"
	return c
}

// stop gives up at once on what is still to be brought.
func stop(s *Shipper) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Close(ctx)
}

func sinkAt(t testing.TB, url string) Target {
	t.Helper()
	target, err := ParseSink(url)
	check(t, err)
	return target
}

func anchorAt(t testing.TB, s string) Target {
	t.Helper()
	target, err := ParseAnchor(s)
	check(t, err)
	return target
}

// said is what was logged.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *said) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// receiver is a server that keeps what it acknowledged. Each request first
// takes the next fault, if there is one.
type receiver struct {
	*httptest.Server
	take func(r *http.Request, body []byte) // with mu held

	mu       sync.Mutex
	faults   []fault
	requests int
	headers  http.Header // of the last request that was acknowledged
	lines    []string
	notes    []string
	stopped  chan struct{}
}

// fault answers a request in place of the receiver, or after it (true).
type fault func(rc *receiver, w http.ResponseWriter, r *http.Request) (after bool)

func status(code int, header ...string) fault {
	return func(_ *receiver, w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprintln(w, strings.Repeat("no ", 100))
		return false
	}
}

// hang answers nothing until the client or the server goes away.
func hang(rc *receiver, _ http.ResponseWriter, r *http.Request) bool {
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
	case <-rc.stopped:
	}
	return false
}

// reset cuts the connection without an answer.
func reset(_ *receiver, w http.ResponseWriter, _ *http.Request) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.(interface{ SetLinger(int) error }).SetLinger(0)
		conn.Close()
	}
	return false
}

// lose takes what was sent and loses the answer.
func lose(rc *receiver, w http.ResponseWriter, r *http.Request) bool {
	rc.keep(r)
	return reset(rc, w, r)
}

// dribble answers a byte at a time.
func dribble(_ *receiver, w http.ResponseWriter, r *http.Request) bool {
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusServiceUnavailable)
	for range 20 {
		_, _ = w.Write([]byte("."))
		_ = http.NewResponseController(w).Flush()
	}
	return false
}

func newReceiver(t testing.TB, faults ...fault) *receiver {
	t.Helper()
	rc := &receiver{faults: faults, stopped: make(chan struct{})}
	rc.Server = httptest.NewUnstartedServer(http.HandlerFunc(rc.serve))
	rc.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	rc.Start()
	t.Cleanup(func() { close(rc.stopped); rc.Close() })
	return rc
}

func (rc *receiver) serve(w http.ResponseWriter, r *http.Request) {
	rc.mu.Lock()
	rc.requests++
	var f fault
	if len(rc.faults) > 0 {
		f, rc.faults = rc.faults[0], rc.faults[1:]
	}
	rc.mu.Unlock()
	if f != nil && !f(rc, w, r) {
		return
	}
	rc.keep(r)
}

func (rc *receiver) keep(r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
		var zip *gzip.Reader
		if zip, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(zip)
		}
	}
	if err != nil {
		return
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.headers = r.Header.Clone()
	if r.Header.Get("Content-Type") == "text/plain" {
		rc.notes = append(rc.notes, string(b))
	} else {
		rc.lines = append(rc.lines, strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")...)
		rc.lines[len(rc.lines)-1] += "\n"
	}
	if rc.take != nil {
		rc.take(r, b)
	}
}

func (rc *receiver) setFaults(f ...fault) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.faults = f
}

func (rc *receiver) got() (requests int, lines, notes []string, h http.Header) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.requests, slices.Clone(rc.lines), slices.Clone(rc.notes), rc.headers
}

// forever is a fault many times.
func forever(f fault) []fault { return slices.Repeat([]fault{f}, 10_000) }

// wantLog fails unless what arrived is the engine's log: every line of it, in
// order, some of them more than once.
func (rc *receiver) wantLog(t testing.TB, e *engine) {
	t.Helper()
	want := e.lines(t)
	var lines []string
	eventually(t, "the last record arrived", func() bool {
		_, lines, _, _ = rc.got()
		return len(lines) > 0 && lines[len(lines)-1] == want[len(want)-1]
	})
	next := 0
	for i, l := range lines {
		switch {
		case next < len(want) && l == want[next]:
			next++
		case !slices.Contains(want[:next], l):
			t.Fatalf("line %d that arrived is not record %d and none before it: %s", i, next+1, l)
		}
	}
	if next != len(want) {
		t.Fatalf("%d of %d records arrived", next, len(want))
	}
}

func newSigner(t testing.TB) *checkpoint.Signer {
	t.Helper()
	private, err := checkpoint.Generate("ship.test")
	check(t, err)
	s, err := checkpoint.NewSigner(private)
	check(t, err)
	return s
}

// note is a signed checkpoint of size records.
func note(t testing.TB, s *checkpoint.Signer, size uint64) []byte {
	t.Helper()
	b, err := s.Sign(checkpoint.Checkpoint{Size: size, Session: "sess_1", Time: time.Unix(1, 0)})
	check(t, err)
	return b
}

// refused is an address at which nobody listens.
func refused(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	return "127.0.0.1:" + strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

var errNone = errors.New("none")
