package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const originName = "origin.test"

// intake.Connect and intake.Plain: this package does not import intake.
const (
	connect = 1
	plain   = 2
)

// deadline bounds what would else hang; nothing is asserted about it.
const deadline = 20 * time.Second

// names is a Resolver of fixed answers that counts its lookups.
type names struct {
	mu      sync.Mutex
	answers map[string][]string
	lookups int
	err     error
}

func (n *names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookups++
	if n.err != nil {
		return nil, n.err
	}
	list, ok := n.answers[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, ctx.Err()
}

func (n *names) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lookups
}

func loopback() *names {
	return &names{answers: map[string][]string{originName: {"127.0.0.1"}, "other.test": {"127.0.0.1"}}}
}

// world is a Client with a log to be recorded in.
type world struct {
	t    testing.TB
	c    *Client
	log  *audit.Log
	ids  atomic.Uint64
	rule rule
}

// rule is what the policy of a test says beside "everything".
type rule struct {
	addresses []string // default: loopback
	roots     []byte   // PEM
	pins      [][32]byte
	headers   string // YAML: what is set and removed
}

func newWorld(t testing.TB, ca *authority, edit func(*Config)) *world {
	t.Helper()
	conf := Config{Resolver: loopback()}
	if ca != nil {
		conf.Roots = ca.pool
	}
	if edit != nil {
		edit(&conf)
	}
	c, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(audit.Config{File: filepath.Join(t.TempDir(), "audit.jsonl")})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, c: c, log: log, rule: rule{addresses: []string{"127.0.0.0/8", "::1/128"}}}
	t.Cleanup(func() {
		c.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		if n := len(c.pool.live) + len(c.pool.live2) + c.pool.idle; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return w
}

// request parses raw, a request with "\n" for CRLF, as it would arrive for target.
func (w *world) request(target, raw string) *canon.Request {
	w.t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		w.t.Fatal(err)
	}
	in := canon.Inbound{Kind: connect, Scheme: canon.HTTPS}
	if u.Scheme == "http" {
		in = canon.Inbound{Kind: plain, Scheme: canon.HTTP}
		method, rest, _ := strings.Cut(raw, " ")
		raw = method + " http://" + u.Host + rest // absolute-form
	} else if in.Authority, err = canon.ParseAuthority(u.Host, 443); err != nil {
		w.t.Fatal(err)
	}
	line, rest, _ := strings.Cut(strings.TrimRight(raw, "\n"), "\n")
	raw = line + "\nHost: " + u.Host + "\n" + rest
	raw = strings.ReplaceAll(strings.TrimRight(raw, "\n")+"\n\n", "\n", "\r\n")
	var h http1.RequestHead
	r := http1.NewReader(strings.NewReader(raw))
	if err := r.ReadRequest(&h); err != nil {
		w.t.Fatalf("%q: %v", raw, err)
	}
	req := new(canon.Request)
	if err := req.FromHTTP1(w.ids.Add(1), in, &h); err != nil {
		w.t.Fatalf("%q: %v", raw, err)
	}
	return req
}

func (w *world) receipt(req *canon.Request) audit.Receipt {
	w.t.Helper()
	rc, err := w.log.Decide(&audit.Record{
		Event: audit.EgressAllowed, Phase: audit.PhaseDecision, ID: req.ID(), Host: req.Host, Port: req.Port, Method: req.Method,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return rc
}

func (o *origin) url(scheme string) string {
	return scheme + "://" + originName + ":" + strconv.Itoa(int(o.addr.Port()))
}

// send permits, records and sends raw to o.
func (w *world) send(o *origin, raw string, opts *SendOptions) (*Response, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	w.t.Cleanup(cancel)
	return w.sendTo(ctx, o.url("https"), raw, opts)
}

func (w *world) sendPlain(o *origin, raw string, opts *SendOptions) (*Response, error) {
	w.t.Helper()
	return w.sendTo(context.Background(), o.url("http"), raw, opts)
}

func (w *world) sendTo(ctx context.Context, target, raw string, opts *SendOptions) (*Response, error) {
	w.t.Helper()
	req := w.request(target, raw)
	if opts == nil {
		opts = &SendOptions{Principal: "agent"}
	}
	return w.c.Send(ctx, permit(w.t, req, w.rule), w.receipt(req), req, opts)
}

// get sends a GET and expects its answer's body.
func (w *world) get(o *origin, want string) *Response {
	w.t.Helper()
	res, err := w.send(o, "GET / HTTP/1.1\n\n", nil)
	return w.expect(res, err, want)
}

func (w *world) expect(res *Response, err error, want string) *Response {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := readAll(res)
	if err != nil {
		w.t.Fatalf("reading the answer: %v (after %q)", err, got)
	}
	if got != want {
		w.t.Fatalf("answer %q, want %q", got, want)
	}
	copied := Response{Status: res.Status, Proto: res.Proto, Reused: res.Reused, Addr: res.Addr, TLSVersion: res.TLSVersion}
	res.Close()
	return &copied
}

func readAll(res *Response) (string, error) {
	var b bytes.Buffer
	for {
		p, err := res.Next()
		b.Write(p)
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// reason expects err to be an Error and returns "reason status".
func reason(t testing.TB, err error) string {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is not an *Error", err, err)
	}
	return e.Reason + " " + strconv.Itoa(e.Status)
}

func wantReason(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", want)
	}
	if got := reason(t, err); got != want {
		t.Fatalf("%s (%v), want %s", got, err, want)
	}
}

func field(fields []http1.Field, name string) string {
	var all []string
	for _, f := range fields {
		if strings.EqualFold(string(f.Name), name) {
			all = append(all, string(f.Value))
		}
	}
	return strings.Join(all, "|")
}

// feed is a Body that a test feeds.
type feed struct {
	pieces   chan []byte
	fail     chan error
	abort    chan struct{}
	once     sync.Once
	asked    chan struct{} // closed by the first Next
	askOnce  sync.Once
	trailers []http1.Field
	inNext   atomic.Int32
}

func newFeed(pieces ...string) *feed {
	f := &feed{pieces: make(chan []byte, 64), fail: make(chan error, 1), abort: make(chan struct{}), asked: make(chan struct{})}
	for _, p := range pieces {
		f.pieces <- []byte(p)
	}
	return f
}

func whole(pieces ...string) *feed {
	f := newFeed(pieces...)
	close(f.pieces)
	return f
}

var errAborted = errors.New("aborted")

func (f *feed) Next() ([]byte, error) {
	if f.inNext.Add(1) != 1 {
		panic("two Next at once")
	}
	defer f.inNext.Add(-1)
	f.askOnce.Do(func() { close(f.asked) })
	select {
	case <-f.abort:
		return nil, errAborted
	default:
	}
	select {
	case p, ok := <-f.pieces:
		if !ok {
			return nil, io.EOF
		}
		return p, nil
	case err := <-f.fail:
		return nil, err
	case <-f.abort:
		return nil, errAborted
	}
}

func (f *feed) Trailers() []http1.Field { return f.trailers }
func (f *feed) Abort()                  { f.once.Do(func() { close(f.abort) }) }

func (f *feed) aborted() bool {
	select {
	case <-f.abort:
		return true
	default:
		return false
	}
}

func (f *feed) wasAsked() bool {
	select {
	case <-f.asked:
		return true
	default:
		return false
	}
}

func withBody(b Body) *SendOptions { return &SendOptions{Principal: "agent", Body: b} }

// until polls for a state that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) idle() int {
	w.c.pool.mu.Lock()
	defer w.c.pool.mu.Unlock()
	return w.c.pool.idle
}

func reply(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}
