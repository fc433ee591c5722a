package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// lines is a log that is written to by many goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// stuck is a Resolver that answers when it is told to stop.
type stuck struct{ asked chan struct{} }

func (s stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	close(s.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// full is the address of a listener whose backlog is full: who connects waits.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	conn, err := net.Dial("tcp", at.String()) // a backlog of 0 holds one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return at
}

// connecting reports that a socket of this machine waits for at to answer.
func connecting(t *testing.T, at netip.AddrPort) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const synSent = " 02 "
	return strings.Contains(string(table), fmt.Sprintf(":%04X%s", at.Port(), synSent))
}

// TestACanceledExchangeEndsWhereverItIs holds the exchange at one place after
// the other, where nothing would go on within the test's deadline.
func TestACanceledExchangeEndsWhereverItIs(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	stop := make(chan struct{})
	defer close(stop)
	held := func(o *origin) func() {
		return func() { until(t, "a connection", func() bool { return o.conns.Load() > 0 }) }
	}
	silent := listen(t, nil, func(net.Conn) { <-stop })
	silentProxy := listen(t, nil, func(net.Conn) { <-stop })
	backlog := full(t)
	resolver := stuck{make(chan struct{})}
	at := func(ap netip.AddrPort, scheme string) string { return (&origin{addr: ap}).url(scheme) }
	asked := make(chan struct{}, 1)
	wait := func() { <-asked }
	h1 := listen(t, conf, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
	})
	h2 := serveHTTP(t, conf, true, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	small, large := newFeed(), newFeed("abc")
	for name, row := range map[string]struct {
		target string
		config func(*Config)
		held   func() // returns when the exchange is there
		body   *feed
		length string
	}{
		"resolving":                      {target: at(silent.addr, "https"), config: func(c *Config) { c.Resolver = resolver }, held: func() { <-resolver.asked }},
		"connecting":                     {target: at(backlog, "https"), held: func() { until(t, "a SYN", func() bool { return connecting(t, backlog) }) }},
		"asking the corporate proxy":     {target: at(silent.addr, "https"), config: func(c *Config) { c.Proxy = &url.URL{Scheme: "http", Host: silentProxy.addr.String()} }, held: held(silentProxy)},
		"TLS to the corporate proxy":     {target: at(silent.addr, "https"), config: func(c *Config) { c.Proxy = &url.URL{Scheme: "https", Host: silentProxy.addr.String()} }, held: held(silentProxy)},
		"TLS":                            {target: at(silent.addr, "https"), held: held(silent)},
		"waiting for the head":           {target: at(h1.addr, "https"), held: wait},
		"waiting for the head, h2":       {target: at(h2.addr, "https"), held: wait},
		"waiting for a small body":       {target: at(h1.addr, "https"), held: func() { <-small.asked }, body: small, length: "Content-Length: 3"},
		"waiting for more of a body":     {target: at(h1.addr, "https"), held: wait, body: large, length: "Transfer-Encoding: chunked"},
		"waiting for 100 Continue":       {target: at(h1.addr, "https"), config: func(c *Config) { c.ContinueTimeout = deadline }, held: wait, body: newFeed(), length: "Content-Length: 3\nExpect: 100-continue"},
		"waiting for more of a body, h2": {target: at(h2.addr, "https"), held: wait, body: newFeed("abc"), length: "Transfer-Encoding: chunked"},
		"waiting for a small body, h2":   {target: at(h2.addr, "https"), held: wait, body: newFeed("ab"), length: "Content-Length: 3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ca, row.config)
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				row.held()
				cancel(fmt.Errorf("the rule is gone"))
			}()
			raw, opts := "GET / HTTP/1.1", withBody(nil)
			if row.body != nil {
				raw, opts = "POST / HTTP/1.1\n"+row.length, withBody(row.body)
			}
			_, err := w.sendTo(ctx, row.target, raw, opts)
			wantReason(t, err, "canceled 502")
			if row.body != nil && row.body.inNext.Load() != 0 {
				t.Error("the body is still in use")
			}
		})
	}
}

func TestACanceledExchangeEndsInTheAnswersBody(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	for _, h2 := range []bool{false, true} {
		o := serveHTTP(t, conf, h2, handler)
		w := newWorld(t, ca, nil)
		ctx, cancel := context.WithCancel(context.Background())
		res, err := w.sendTo(ctx, o.url("https"), "GET / HTTP/1.1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := res.Next(); string(p) != "part" {
			t.Fatal(p, err)
		}
		failed := make(chan error)
		go func() { _, err := res.Next(); failed <- err }()
		cancel()
		wantReason(t, <-failed, "canceled 502")
		res.Close()
		if w.idle() != 0 {
			t.Error("the connection was kept")
		}
	}
}

// ends is a Body at whose end the exchange's context is canceled: all is ready
// to be sent, and nothing is.
type ends struct {
	*feed
	cancel context.CancelFunc
}

func (e ends) Next() ([]byte, error) {
	p, err := e.feed.Next()
	if err == io.EOF {
		e.cancel()
	}
	return p, err
}

func TestNothingIsSentAfterTheContextEnded(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}}
	got := make(chan string, 1)
	o := listen(t, conf, func(conn net.Conn) {
		b, _ := io.ReadAll(conn)
		got <- string(b)
	})
	w := newWorld(t, ca, nil)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := w.sendTo(ctx, o.url("https"), "POST / HTTP/1.1\nContent-Length: 3", withBody(ends{whole("abc"), cancel}))
	wantReason(t, err, "canceled 502")
	if sent := <-got; sent != "" {
		t.Errorf("%q was sent", sent)
	}

	requests := make(chan string, 2)
	o = serveHTTP(t, conf, true, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r.URL.Path }))
	w = newWorld(t, ca, nil)
	w.get(o, "") // there is a connection
	<-requests
	for range 20 {
		body := newFeed()
		_, err = w.sendTo(ctx, o.url("https"), "POST /late HTTP/1.1\nTransfer-Encoding: chunked", withBody(body))
		wantReason(t, err, "canceled 502")
		if body.wasAsked() {
			t.Error("the body was read")
		}
	}
	w.get(o, "")
	if path := <-requests; path != "/" {
		t.Errorf("the origin was asked for %s", path)
	}
}

func TestDialEndsWithTheContext(t *testing.T) {
	o := listen(t, nil, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	ctx, cancel := context.WithCancel(context.Background())
	w := newWorld(t, nil, nil)
	a, err := canon.ParseAuthority(strings.TrimPrefix(o.url("https"), "https://"), 0)
	if err != nil {
		t.Fatal(err)
	}
	req := new(canon.Request)
	req.FromTunnel(w.ids.Add(1), a)
	p, rc := tunnelPermit(t, req, w.rule), w.receipt(req)
	cancel()
	_, err = w.c.Dial(ctx, p, rc, req)
	wantReason(t, err, "canceled 502")
	late := &lateContext{Context: context.Background()}
	_, err = w.c.Dial(late, p, rc, req)
	wantReason(t, err, "canceled 502")
}

// lateContext is one that ends between two looks at it: its Done never says so.
type lateContext struct{ context.Context }

func (*lateContext) Err() error { return context.Canceled }
