package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Server carries agents' connections. It is safe for concurrent use.
type Server struct {
	cfg    Config
	limits Limits
	now    func() time.Time
	tls    *tls.Config // shared, so that tickets resume on any connection
	wide   *h2side     // for HTTP/2
	narrow *h2side     // … beyond what there is room for
	ids    atomic.Uint64

	draining atomic.Bool // Shutdown has begun: connections end after their exchange
	aborting atomic.Bool // its time is up: what is left is cut
	over     chan struct{}
	end      func() // closes over: nothing is left, or what is left is cut

	mu sync.Mutex
	places
	wg sync.WaitGroup

	turned    chan struct{}       // one for each connection that is turned away now
	heads     *budget[netip.Addr] // of heads that are larger than a small page, from their fifth KiB until their request has ended; by address
	uploads   *budget[netip.Addr] // of large pages through which bodies of HTTP/1 are read; by address
	answers   *budget[string]     // … and answers; by principal
	replies   *budget[string]     // of the large heads of answers; by principal
	windows   *budget[string]     // of what HTTP/2 clients may send ahead, beyond narrow windows; by principal
	bodies    *budget[string]     // of bodies that conditions read, by principal: a rule that reads them must not be a way to fill the memory
	parsing   chan struct{}       // one for each body that a condition looks at now
	tallies   tallies
	tidier    tidier
	exchanges sync.Pool // of *exchange, for HTTP/2 streams
	turns     sync.Pool // of *turn, for HTTP/1
}

// New returns a Server, or an error for a Config that could not keep the
// promises: every dependency is needed, since each missing one would be a way
// past the policy or the log.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		limits:  cfg.Limits.withDefaults(),
		now:     cfg.Now,
		places:  places{conns: make(map[*conn]struct{}), byClient: make(map[netip.Addr]share)},
		over:    make(chan struct{}),
		turned:  make(chan struct{}, maxTurned),
		tallies: tallies{of: make(map[string]*tally)},
	}
	s.end = sync.OnceFunc(func() { close(s.over) })
	s.heads = newBudget[netip.Addr](s.limits.HeadBytes, s.limits.HeadBytes)
	s.uploads = newBudget[netip.Addr](s.limits.PageBytes/2, s.limits.PageBytes/2)
	s.answers = newBudget[string](s.limits.PageBytes/4, s.limits.PageBytes/4)
	s.replies = newBudget[string](s.limits.PageBytes/4, s.limits.PageBytes/4)
	s.windows = newBudget[string](s.limits.WindowBytes, s.limits.WindowBytes)
	s.bodies = newBudget[string](s.limits.JudgedBytes, 2*s.limits.JudgedBytes)
	s.parsing = make(chan struct{}, maxParsed(debug.SetMemoryLimit(-1), runtime.GOMAXPROCS(0)))
	if s.now == nil {
		// The monotonic clock alone, which takes half as long: times are only
		// compared with each other here.
		epoch := time.Now()
		s.now = func() time.Time { return epoch.Add(time.Since(epoch)) }
	}
	s.exchanges.New = func() any { return newExchange(s) }
	s.turns.New = func() any {
		t := &turn{x: newExchange(s)}
		t.x.alone = true
		return t
	}
	s.tls = s.tlsConfig()
	if err := s.startHTTP2(); err != nil {
		return nil, err
	}
	go s.watchClients() // until the last of them has left
	return s, nil
}

// Serve takes forward-proxy connections from ln until ctx is done or ln fails:
// CONNECT, and absolute-form requests for http URLs. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.accept(ctx, ln, (*conn).serveForward)
}

// ServeTLS is Serve for clients that speak TLS to the port itself.
func (s *Server) ServeTLS(ctx context.Context, ln net.Listener, cfg *tls.Config) error {
	return s.accept(ctx, tls.NewListener(wired{ln}, cfg), (*conn).serveForward)
}

// wired puts a wire below the TLS of its connections.
type wired struct{ net.Listener }

func (l wired) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wire{Conn: nc, shake: true}, nil // until the first head
}

// ServeTransparent takes connections that the kernel redirected (Linux). It
// closes ln.
func (s *Server) ServeTransparent(ctx context.Context, ln net.Listener) error {
	return s.accept(ctx, ln, (*conn).serveTransparent)
}

func (s *Server) accept(ctx context.Context, ln net.Listener, serve func(*conn)) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer ln.Close()
	var wait time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if temporary(err) {
				// Out of descriptors or a client that left in the queue: the
				// listener is sound, and giving up would be a denial for all.
				wait = min(max(2*wait, 5*time.Millisecond), time.Second)
				s.cfg.Logger.Warn("accepting a connection", "error", err, "retry_in", wait)
				select {
				case <-time.After(wait):
					continue
				case <-ctx.Done():
					return nil
				}
			}
			return fmt.Errorf("accepting connections on %s: %w", ln.Addr(), err)
		}
		wait = 0
		c := newConn(s, nc)
		if !s.enter(c) {
			s.turnAway(c)
			continue
		}
		go s.carry(c, serve)
	}
}

// turnAway records and closes c, which is one connection too many. Whose it is
// may take a while to find out, for which nobody else's connection waits; where
// that is asked about maxTurned of them already, it is nobody's.
func (s *Server) turnAway(c *conn) {
	select {
	case s.turned <- struct{}{}:
		s.wg.Go(func() {
			defer func() { <-s.turned }()
			c.overLimit(true)
		})
	default:
		c.overLimit(false)
	}
}

// maxTurned is how many connections may be turned away at once with a name.
const maxTurned = 64

// carry is the life of c, or a part of it.
func (s *Server) carry(c *conn, serve func(*conn)) {
	defer func() {
		if c.resting {
			go s.carry(c, (*conn).rest)
		} else {
			s.leave(c)
		}
	}()
	defer s.recovered(c)
	serve(c)
}

// temporary reports an Accept error that says nothing about the listener.
func temporary(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 Accept's EMFILE and ECONNABORTED have no other name in package net.
	return errors.As(err, &ne) && ne.Temporary() //nolint:staticcheck // see above
}

// recovered turns a panic of one connection into its end. The request under
// way has its decision record and no completion, which audit verify reports.
func (s *Server) recovered(c *conn) {
	if v := recover(); v != nil {
		s.cfg.Logger.Error("a connection was closed by a panic; this is a defect", "client", c.flow.Client, "panic", v, "stack", string(debug.Stack()))
		_ = rawOf(c.tcp).Close()
	}
}

// guarded runs f on behalf of a connection in a goroutine beside its own: a
// panic there ends that connection and not the engine.
func (s *Server) guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Logger.Error("a stream was closed by a panic; this is a defect", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f()
}

// leave forgets c, unless HTTP/2 has taken it over: then the end of that
// connection does.
func (s *Server) leave(c *conn) {
	c.reader.Close()
	if c.handedOver.Load() {
		return
	}
	raw := rawOf(c.tcp)
	if tcp, ok := raw.(*net.TCPConn); ok && c.cutShort {
		// A reset and no close_notify: an answer that ends with the connection
		// must not look whole (RFC 9112 section 9.8).
		_ = tcp.SetLinger(0)
	} else if raw != c.tcp {
		_ = c.tcp.Close()
	}
	_ = raw.Close()
	s.forget(c)
}

func (s *Server) forget(c *conn) {
	if c.watch != nil {
		c.watch.streams.endAll()
	}
	c.release()
	s.remove(c)
	if c.window > 0 {
		s.windows.give(c.principalID, c.window)
		c.window = 0
	}
	if c.helloRoom > 0 {
		c.heads.Give(c.helloRoom)
		c.helloRoom = 0
	}
	if c.open != nil {
		c.open.Dec()
	}
	s.wg.Done()
}

// PolicyChanged re-judges what is under way by the set now in force: streams
// and tunnels whose rule is gone are cut, and every pooled upstream connection
// is retired, so that none is used that the new rules would not have dialled.
func (s *Server) PolicyChanged() {
	s.cfg.Upstream.Retire(func(string, string, uint16, string) bool { return false })
	var slow []*judgement
	for _, c := range s.snapshot() {
		slow = c.rejudge(slow)
	}
	s.rejudgeAll(slow)
}

func (s *Server) snapshot() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Shutdown lets exchanges under way finish until ctx is done, then closes what
// is left. Idle connections have Limits.Lull for one more request each. The listeners must have been
// stopped before; the log is the caller's to close afterwards.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.end()
	s.mu.Lock()
	s.draining.Store(true)
	s.mu.Unlock()
	for _, c := range s.snapshot() {
		c.lull()
	}
	h2err := s.stopHTTP2(ctx)
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.aborting.Store(true)
	s.end()
	_ = errors.Join(s.wide.Close(), s.narrow.Close())
	for _, c := range s.snapshot() {
		c.abort()
	}
	s.cfg.Upstream.Close() // or who waits for an origin's answer would wait on
	<-done
	return errors.Join(ctx.Err(), h2err)
}

// handover is the listener through which connections that chose HTTP/2 reach
// the standard library's server.
type handover struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handover) Addr() net.Addr { return handoverAddr{} }

type handoverAddr struct{}

func (handoverAddr) Network() string { return "handover" }
func (handoverAddr) String() string  { return "terminated TLS" }
