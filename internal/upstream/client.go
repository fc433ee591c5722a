// Package upstream is the only part of the engine that opens connections to
// the world, and so the last place that can refuse to.
//
// Send takes a policy.Permit and an audit.Receipt beside the request, and both
// must cover that very request: what was not allowed, or is not in the log,
// has no way through here. Only then is the name resolved (row D10: a lookup
// is a message), every address judged, a connection taken from the pool or
// dialled, TLS verified, and the request sent as it was judged: HTTP/1.1 as
// those bytes by a codec of our own, HTTP/2 as those fields by the standard
// library. Nothing is added (no User-Agent, no Accept-Encoding), decompressed,
// redirected or retried.
//
// A connection belongs to one principal, scheme, host, port and egress (the
// rule's addresses, roots and pins), and is used by no other (row D8). It goes
// back to the pool only if the exchange ended exactly where both sides said it
// would. Every failure closes it.
//
// Memory is bounded per exchange: bodies pass through one buffer in each
// direction, HTTP/2 windows are capped.
//
// The package does not decide, does not log requests and does not answer
// clients. It trusts policy and audit for the meaning of Permit and Receipt,
// and nothing that comes from the network.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// Config is how a Client reaches the world. The zero value is usable: the
// system's resolver and roots, no proxy, the defaults below.
type Config struct {
	// Resolver finds addresses. nil: the system's configuration through Go's
	// resolver, /etc/hosts and then DNS, each name taken as absolute (the search
	// list does not apply).
	Resolver Resolver
	// Control is called for each socket before it connects, and fails the dial
	// with its error: a net.Dialer's ControlContext. So are those that ask for
	// names, unless by a Resolver that was given. nil: none.
	Control func(ctx context.Context, network, address string, socket syscall.RawConn) error
	// Roots verify upstream certificates where the rule has none. nil: the system's.
	Roots *x509.CertPool
	// DenyCIDRs are refused like private addresses: pod, service and node ranges.
	DenyCIDRs []netip.Prefix
	// Own are the engine's listeners. An unspecified address stands for all of
	// the machine's.
	Own []netip.AddrPort

	// Proxy is a corporate proxy to CONNECT through: http or https, with
	// optional user and password. Its own address is not judged.
	Proxy *url.URL
	// ProxyBypass are names ("a.example"), suffixes (".example"), "*" or CIDRs
	// that are dialled directly.
	ProxyBypass []string
	// ProxyResolves hands names to Proxy unresolved. The address guard then
	// does not apply to them: a hole, for networks without DNS.
	ProxyResolves bool

	// KeyExchange are the TLS key exchanges offered. crypto/tls ignores their
	// order; the first share is X25519's unless it is left out. nil: X25519,
	// P-256, P-384. The post-quantum hybrids (tls.X25519MLKEM768) cost a
	// client about 210 us more a handshake.
	KeyExchange []tls.CurveID

	ResolveTimeout   time.Duration // a lookup; default 5 s
	ConnectTimeout   time.Duration // TCP, each address; default 10 s
	HandshakeTimeout time.Duration // TLS, and CONNECT to a proxy; default 10 s
	// HeaderTimeout is from the end of the request to the head of the answer;
	// default 10 min, as a language model may think that long.
	HeaderTimeout time.Duration
	// BodyIdleTimeout is between two reads of a body; default 10 min.
	BodyIdleTimeout time.Duration
	// StreamIdleTimeout is the same for gRPC, whose dead peers a ping finds; default 1 h.
	StreamIdleTimeout time.Duration
	// ContinueTimeout is how long a body waits for 100 Continue; default 1 s.
	ContinueTimeout time.Duration
	// WriteTimeout is how long a write may stall; default 30 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long an unused connection is kept; default 90 s.
	IdleTimeout time.Duration

	MaxIdlePerHost int // idle HTTP/1.1 connections of one key; default 1024: those beyond are opened anew for each request
	MaxHTTP2       int // HTTP/2 connections in all; default 1024: those beyond take the place of one that whoever has the most does not use
	MaxIdle        int // idle HTTP/1.1 connections in all; default 4096: those beyond take the place of whoever holds the most

	Now    func() time.Time // judges certificates; default time.Now
	Logger *slog.Logger     // default: discards
}

// Client sends permitted and recorded requests. It is safe for concurrent use.
type Client struct {
	conf      Config
	guard     *guard
	sessions  tls.ClientSessionCache
	pool      *pool
	transport *http.Transport // makes HTTP/2 client connections, never dials
	narrow    *http.Transport // … that hold little
	bufs      sync.Pool       // of *[]byte, corkSize
}

// New returns a Client. It fails for a Config that it could not act on.
func New(c Config) (*Client, error) {
	if c.Resolver == nil {
		c.Resolver = systemResolver(c.Control)
	}
	if err := checkProxy(c.Proxy); err != nil {
		return nil, err
	}
	setDefault(&c.ResolveTimeout, 5*time.Second)
	setDefault(&c.ConnectTimeout, 10*time.Second)
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.HeaderTimeout, 10*time.Minute)
	setDefault(&c.BodyIdleTimeout, 10*time.Minute)
	setDefault(&c.StreamIdleTimeout, time.Hour)
	setDefault(&c.ContinueTimeout, time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.IdleTimeout, 90*time.Second)
	setDefault(&c.MaxIdlePerHost, 1024)
	setDefault(&c.MaxIdle, 4096)
	setDefault(&c.MaxHTTP2, 1024)
	if c.KeyExchange == nil {
		c.KeyExchange = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.DenyCIDRs = slices.Clone(c.DenyCIDRs)
	g, err := newGuard(c.DenyCIDRs, c.Own)
	if err != nil {
		return nil, err
	}
	cl := &Client{conf: c, guard: g, sessions: tls.NewLRUClientSessionCache(sessionCache)}
	cl.pool = newPool(c)
	cl.transport, cl.narrow = newTransport(c, streamWindow, connectionWindow), newTransport(c, narrowWindow, narrowWindow)
	cl.bufs.New = func() any { b := make([]byte, corkSize); return &b }
	return cl, nil
}

func setDefault[T time.Duration | int](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Body is a request's body as it arrives. Send calls Next from one goroutine
// at a time, maybe not the caller's, until io.EOF (also after a declared
// Length), or not at all.
type Body interface {
	// Next returns the next bytes, valid until the next call, or nil and
	// io.EOF. The first call sends the client its 100 Continue, if it waits for one.
	Next() ([]byte, error)
	// Trailers returns the trailer fields, after io.EOF.
	Trailers() []http1.Field
	// Abort unblocks a Next in another goroutine; it and later ones fail.
	Abort()
}

// SendOptions are what Send needs beside the request.
type SendOptions struct {
	Principal string // whose connections may be used: identity.Principal.ID
	Body      Body   // nil: no body

	// Heads and Pages bound what of the answer is held beyond 4 KiB: a large head that
	// finds no room fails, a body is read in small pieces. nil: no bound.
	Heads, Pages http1.Allowance

	// OnInterim is called with each 1xx answer but 100 and 101, before Send
	// returns and in no two goroutines at once; fields are valid during the
	// call. An error ends the exchange. nil: they are dropped.
	OnInterim func(status int, fields []http1.Field) error
}

// Watched is a context for Send whose end can be waited for without an
// allocation for each exchange, which context.AfterFunc makes.
type Watched interface {
	context.Context
	// Watch is context.AfterFunc, for one function at a time.
	Watch(f func()) (stop func() bool)
}

// Send sends req and returns the head of its answer. The caller must Close
// the Response, once. An error is always an *Error; the connection that it came
// from is closed and o.Body is no longer in use.
//
// ctx is for the exchange to its end, not for Send alone: when it is done,
// nothing more is sent and what waits fails with reason canceled.
//
// Where the answer comes before all of the body was sent, an answer of 300 and
// above stops the upload (o.Body.Abort is called); below that, both go on.
func (c *Client) Send(ctx context.Context, p policy.Permit, rc audit.Receipt, req *canon.Request, o *SendOptions) (*Response, error) {
	eg, err := covered(p, rc, req)
	if err != nil {
		return nil, err
	}
	for _, name := range req.Trailers {
		if err := checkTrailer(&p, name); err != nil {
			return nil, err
		}
	}
	if req.Scheme != canon.HTTPS && req.Scheme != canon.HTTP {
		return nil, fail(ReasonUnsendable, http.StatusInternalServerError, "Send carries http and https only", nil)
	}
	if o == nil {
		o = new(SendOptions)
	}
	key := poolKey{principal: o.Principal, scheme: req.Scheme, host: req.Host, port: req.Port, egress: eg.Key}
	h1only := req.Scheme == canon.HTTP || req.Upgrade != canon.NoUpgrade
	composed := []byte(nil)
	for {
		h1, h2, err := c.acquire(ctx, key, targetOf(req, eg), h1only)
		if err != nil {
			return nil, asError(err)
		}
		if h2 != nil {
			if composed != nil && o.Body != nil && inlined(req) { // the body is in composed
				h2.cc.Release()
				return nil, fail(ReasonUpstreamClosed, http.StatusBadGateway, "closed while idle, and now speaks HTTP/2", nil)
			}
			return c.sendH2(ctx, h2, p, req, o)
		}
		res, unsent, err := h1.exchange(ctx, p, req, o, composed)
		if err == nil {
			return res, nil
		}
		if unsent == nil {
			return nil, asError(err)
		}
		// The pool's connection was dead: not a byte of this attempt left the
		// machine, so that the same bytes may go on another one.
		composed = unsent
	}
}

// covered returns how p lets req out, if p and rc are for req.
func covered(p policy.Permit, rc audit.Receipt, req *canon.Request) (*policy.Egress, error) {
	switch {
	case req == nil || !p.Covers(req):
		return nil, fail(ReasonNotPermitted, http.StatusInternalServerError, "the permit does not cover the request", nil)
	case !rc.Covers(req.ID()):
		return nil, fail(ReasonNotPermitted, http.StatusInternalServerError, "the receipt does not cover the request", nil)
	case p.Egress() == nil:
		return nil, fail(ReasonNotPermitted, http.StatusInternalServerError, "the permit has no egress", nil)
	}
	return p.Egress(), nil
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return gateway(ReasonDialFailed, err)
}

// Dial opens a connection for a passthrough: to the judged address, TCP alone.
// It is a *net.TCPConn, so that io.Copy splices, unless an https upstream
// proxy is between.
func (c *Client) Dial(ctx context.Context, p policy.Permit, rc audit.Receipt, req *canon.Request) (net.Conn, error) {
	eg, err := covered(p, rc, req)
	if err != nil {
		return nil, err
	}
	if req.Scheme != canon.Tunnel {
		return nil, fail(ReasonNotPermitted, http.StatusInternalServerError, "Dial is for tunnels; the permit is for a request", nil)
	}
	conn, _, err := c.connect(ctx, targetOf(req, eg))
	if err != nil {
		return nil, asError(err)
	}
	if ctx.Err() != nil {
		_ = conn.Close()
		return nil, gateway(ReasonCanceled, ctx.Err())
	}
	return conn, nil
}

// acquire returns a connection for key: a reserved stream of an HTTP/2 one, or
// an HTTP/1.1 one, from the pool or new.
func (c *Client) acquire(ctx context.Context, key poolKey, t target, h1only bool) (*conn, *h2conn, error) {
	for {
		got, err := c.pool.take(key, h1only)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case got.h1 != nil:
			if got.h1.fresh() {
				return got.h1, nil, nil
			}
			got.h1.close()
		case got.wait != nil:
			select {
			case <-got.wait.done:
			case <-ctx.Done():
				return nil, nil, dialError(ctx, ctx.Err())
			}
			if err := got.wait.err; err != nil {
				return nil, nil, err
			}
		case got.h2 != nil:
			if got.h2.cc.Reserve() == nil {
				return nil, got.h2, nil
			}
			c.pool.drop(got.h2)
		default:
			h1, h2, err := c.open(ctx, key, t, h1only)
			if out := c.pool.opened(got.host, got.flight, h1, h2, err, ctx.Err() != nil); out != nil {
				out.retire()
			}
			if err == nil || got.flight == nil || ctx.Err() == nil {
				return h1, h2, err
			}
			return nil, nil, dialError(ctx, ctx.Err())
		}
	}
}

// open dials t and speaks TLS where its scheme says so.
func (c *Client) open(ctx context.Context, key poolKey, t target, h1only bool) (*conn, *h2conn, error) {
	raw, addr, err := c.connect(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	w, err := newWire(raw)
	if err != nil {
		_ = raw.Close()
		return nil, nil, dialError(ctx, err)
	}
	if key.scheme == canon.HTTP {
		return newConn(c, w, addr, nil), nil, nil
	}
	alpn := []string{"h2", "http/1.1"}
	if h1only {
		alpn = alpn[1:]
	}
	s, err := c.handshake(ctx, w, t, key.principal, alpn)
	if err != nil {
		return nil, nil, err
	}
	if !s.h2 {
		return newConn(c, w, addr, s), nil, nil
	}
	h2, err := c.newH2(ctx, key.principal, t, addr, s)
	return nil, h2, err
}

// Retire closes the connections for which keep answers false, after what they
// carry now; a reload that narrows a rule calls it. New requests do not use them.
func (c *Client) Retire(keep func(principal, host string, port uint16, egressKey string) bool) {
	c.pool.retire(keep)
}

// Close closes every connection, also those in use, and fails later Sends.
func (c *Client) Close() { c.pool.close() }
