package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

var noDeadline time.Time

// conn is one client connection. Its fields are owned by the goroutine that
// serves it, but for those under mu.
type conn struct {
	s *Server
	deadlines
	wire wire
	flow intake.Flow

	principal   identity.Principal
	principalID string
	known       bool         // it has said whose it is; guarded by Server.mu
	identified  atomic.Int64 // when it was last asked whose the connection is, unix nanoseconds
	agent       audit.Agent
	tally       *tally // the principal's; nil until it is known

	authority canon.Authority // the one name; zero on the plain proxy port
	scheme    canon.Scheme
	bound     atomic.Pointer[boundView]

	tlsVersion, alpn string
	helloRefused     *refusal
	hello, helloRoom int              // bytes of its handshake, and what of Server.heads they hold
	heads, uploads   room[netip.Addr] // for large heads of its requests, and pages of their bodies; by its address
	cutShort         bool             // an answer was broken off
	handedOver       atomic.Bool      // HTTP/2 owns the connection and forgets it
	watch            *h2watch         // of HTTP/2; set before its first stream
	window           int64            // … what it has of Server.windows

	open interface{ Dec() } // the gauge that counts this connection; nil until its kind is known

	rw      net.Conn // what carries requests; nil until it is known whose they are
	reader  http1.Reader
	at      time.Time // of the latest look at the clock, before or after a request
	*turn             // nil while a request is waited for
	resting bool      // rest is to go on, in a goroutine of its own
	idleBy  time.Time // when a connection that has settled ends without a request; zero: it has not settled

	mu      sync.Mutex
	one     *exchange              // HTTP/1: what is under way
	streams map[*exchange]struct{} // HTTP/2: what is under way
}

// turn is what an HTTP/1 connection works with while it carries a request. They
// are pooled: an idle connection has none, and a busy engine works with what it
// used last, which is in the processor's caches.
type turn struct {
	head http1.RequestHead
	h1   h1client
	x    *exchange
}

// beginTurn takes a turn from the pool, unless c has one.
func (c *conn) beginTurn() {
	if c.turn == nil {
		c.turn, _ = c.s.turns.Get().(*turn)
	}
}

// endTurn gives it back. What it led to of the connection and its policy is let go.
func (c *conn) endTurn() {
	t := c.turn
	if t == nil {
		return
	}
	c.turn = nil
	t.h1 = h1client{}
	t.x.c, t.x.client, t.x.view = nil, nil, nil
	c.s.turns.Put(t)
}

// exchange returns the exchange of the connection's turn.
func (c *conn) exchange() *exchange {
	c.beginTurn()
	return c.x
}

// boundView is the part of a policy set that is for this connection's principal.
type boundView struct {
	set  *policy.Set
	view *policy.View
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, deadlines: deadlines{tcp: nc}, flow: intake.NewFlow(nc)}
	c.wire = wire{Conn: nc, owner: c}
	c.socket().owner = c
	c.heads, c.uploads = room[netip.Addr]{s.heads, c.flow.Client.Addr()}, room[netip.Addr]{s.uploads, c.flow.Client.Addr()}
	c.reader.Bound(&c.heads)
	c.reader.BoundBodies(&c.uploads)
	return c
}

// policy is what the set now in force says for this connection's principal.
func (c *conn) policy() *policy.View {
	set := c.s.cfg.Policy.Load()
	if b := c.bound.Load(); b != nil && b.set == set {
		return b.view
	}
	b := &boundView{set: set, view: set.For(c.principal)}
	c.bound.Store(b)
	return b.view
}

// count puts the connection into the gauge of its kind, once.
func (c *conn) count() {
	if c.open == nil {
		gauge := c.s.cfg.Metrics.Connection(c.flow.Kind.String())
		gauge.Inc()
		c.open = gauge
	}
}

// overLimit records and closes a connection of which there are too many; ask says
// whether it is found out whose it is.
func (c *conn) overLimit(ask bool) {
	defer c.tcp.Close()
	defer c.release()
	defer c.s.recovered(c)
	why := &refusal{status: 503, reason: "too_many_connections"}
	if ask {
		if unknown := c.identify(); unknown != nil {
			why = unknown
		}
	}
	c.refuseQuietly(why)
}

// serveForward carries a connection of the forward-proxy port: absolute-form
// requests until a CONNECT makes a tunnel of it.
func (c *conn) serveForward() {
	c.reader.Reset(&c.wire)
	defer c.reader.Release()
	c.scheme = canon.HTTP
	for {
		if !c.nextHead(c.tcp) {
			return
		}
		c.socket().shake = false
		if intake.IsConnect(&c.head) {
			c.connect()
			return
		}
		why := asRefusal(c.flow.Plain(&c.head))
		if why == nil {
			why = c.identify()
		}
		if why != nil {
			c.refuseHead(c.tcp, why)
			return
		}
		c.count()
		if !c.exchangeHTTP1(c.tcp) {
			return
		}
	}
}

// nextHead reads the next request head into c.head. It answers and records
// what is no head, and returns false when the connection is at its end.
func (c *conn) nextHead(rw net.Conn) bool {
	first := c.at.IsZero() // of a connection that was not in a tunnel
	if first {
		c.at = c.s.now()
	}
	idle := c.s.limits.Idle
	if c.rw != nil {
		idle = min(idle, c.s.limits.Settle)
	}
	if first {
		c.readUntil(c.at.Add(c.s.limits.Head)) // with the handshake of --listen-tls
	} else {
		c.allowRead(c.at, idle)
	}
	last := c.lastWait()
	if len(c.reader.Buffered()) == 0 {
		c.endTurn()
	}
	if err := c.reader.Wait(); err != nil {
		if idle < c.s.limits.Idle && isTimeout(err) && !last {
			c.resting = true
		} else {
			c.leftWithAlert(err)
		}
		return false
	}
	c.idleBy = noDeadline
	c.beginTurn()
	c.at = c.s.now()
	c.wire.headBy = c.at.Add(c.s.limits.Head)
	err := c.reader.ReadRequest(&c.head)
	if c.wire.headBy.IsZero() { // it did not come in one piece
		c.at = c.s.now()
	}
	c.wire.headBy = noDeadline
	if err == nil {
		return true
	}
	if err == io.EOF {
		return false
	}
	if c.principalID == "" {
		// The first head of a plain connection is what would have said who it is.
		if why := c.identify(); why != nil && !errors.Is(err, http1.ErrNoRoom) {
			c.refuseHead(rw, why)
			return false
		}
	}
	c.refuseHead(rw, refusalOfRead(err))
	return false
}

// leftWithAlert records a client that ended the connection with a TLS alert: in
// TLS 1.3 it may do so after the handshake, and what it did not like about us
// is worth knowing.
func (c *conn) leftWithAlert(err error) {
	if c.helloRefused != nil { // of --listen-tls, whose handshake is the first read
		c.refuseQuietly(c.helloRefused)
		return
	}
	var op *net.OpError
	err = c.socket().heard(err)
	if errors.As(err, &op) && op.Op == "remote error" {
		why := c.handshakeRefusal(err)
		c.s.cfg.Metrics.Handshake(outcomeOf(why))
		c.refuseQuietly(why)
	}
}

// connect serves a CONNECT: the target is agreed on, and where no rule could
// ever allow it the answer is 403 in words that clients print (promise 9).
func (c *conn) connect() {
	c.scheme = canon.NoScheme // until it is known what the tunnel carries
	why := asRefusal(c.flow.Connect(&c.head))
	if why == nil {
		why = c.identify()
	}
	if why == nil {
		why = c.connectTarget()
	}
	if why != nil {
		c.refuseConnect(why)
		return
	}
	c.count()
	verdict := c.policy().Host(c.authority)
	if !verdict.Possible {
		c.refuseConnect(&refusal{status: 403, reason: string(verdict.Reason), rule: verdict.Rule, policy: true})
		return
	}
	if verdict.HTTPS && !verdict.HTTP && !verdict.Passthrough {
		// Inside TLS there is no answer without a leaf.
		if err := c.s.cfg.Leaves.Usable(c.authority.Host); err != nil {
			c.refuseConnect(noLeaf(err))
			return
		}
	}
	// What came behind the CONNECT belongs to the tunnel.
	c.wire.early = append([]byte(nil), c.reader.Buffered()...)
	c.reader.Discard(len(c.wire.early))
	c.reader.Release()
	_ = c.tcp.SetWriteDeadline(c.s.now().Add(c.s.limits.WriteStall))
	if _, err := io.WriteString(c.tcp, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	if verdict.Passthrough {
		c.passthrough()
		return
	}
	c.wire.sniff = true
	c.serveTunnel(verdict)
}

func (c *conn) connectTarget() *refusal {
	a, err := canon.ParseAuthority(c.flow.Target, 0)
	if err != nil {
		return refusalOf(err)
	}
	if c.head.Host != nil && string(c.head.Host) != c.flow.Target {
		h, err := canon.ParseAuthority(string(c.head.Host), a.Port)
		if err != nil {
			return refusalOf(err)
		}
		if h != a {
			return &refusal{status: 421, reason: "name_mismatch", detail: "CONNECT target and Host differ"}
		}
	}
	c.authority = a
	return nil
}

// serveTunnel inspects what is in a tunnel: TLS, or HTTP where a rule for the
// host says http. Anything else is closed and recorded, never relayed.
func (c *conn) serveTunnel(v policy.HostVerdict) {
	c.scheme = canon.HTTPS
	c.flow.TLS = true
	tc, why := c.terminate()
	if why == nil {
		c.serveTLS(tc)
		return
	}
	if why.reason == "not_tls" && v.HTTP {
		c.scheme = canon.HTTP
		c.flow.TLS = false
		c.wire.sniff = false
		c.noDeadlines()
		c.serveHTTP1(&c.wire)
		return
	}
	c.refuseQuietly(why)
}

// serveTLS carries the requests of a terminated connection.
func (c *conn) serveTLS(tc *tls.Conn) {
	if c.alpn == "h2" {
		c.endTurn()
		c.handedOver.Store(true)
		if !c.handOver(tc) {
			c.handedOver.Store(false)
		}
		return
	}
	c.serveHTTP1(tc)
}

// serveHTTP1 carries the requests of a connection whose authority is known.
func (c *conn) serveHTTP1(rw net.Conn) {
	c.reader.Reset(rw)
	c.rw, c.at = rw, c.s.now()
	c.goOn()
}

// goOn carries requests until the connection ends or has been idle for a while.
func (c *conn) goOn() {
	for c.nextHead(c.rw) {
		if !c.exchangeHTTP1(c.rw) {
			break
		}
	}
	if !c.resting {
		c.endHTTP1()
	}
}

func (c *conn) endHTTP1() {
	c.reader.Release()
	if tc, ok := c.rw.(*tls.Conn); ok && !c.cutShort {
		_ = c.tcp.SetWriteDeadline(c.s.now().Add(time.Second))
		_ = tc.CloseWrite()
	}
}

// serveTransparent carries a redirected connection. The kernel's word on the
// original destination gives the port; the name is in the ClientHello or the
// Host header, and we resolve it ourselves.
func (c *conn) serveTransparent() {
	tcp, ok := c.tcp.(*net.TCPConn)
	if !ok {
		return
	}
	c.flow.Kind = intake.Transparent
	c.count()
	if why := c.identify(); why != nil {
		c.refuseQuietly(why)
		return
	}
	dst, err := intake.OriginalDst(tcp)
	if err != nil {
		c.refuseQuietly(&refusal{status: 403, reason: "not_redirected", detail: err.Error()})
		return
	}
	c.flow.OriginalDst = dst
	c.scheme = canon.HTTPS
	_ = c.tcp.SetReadDeadline(c.s.now().Add(min(c.s.limits.Handshake, c.s.limits.Head)))
	c.wire.shake = true
	hello, err := intake.PeekHello(&c.wire)
	c.wire.shake = false
	c.wire.early = hello.Raw
	switch {
	case errors.Is(err, intake.ErrNotTLS):
		c.scheme = canon.HTTP
		c.noDeadlines()
		c.serveTransparentHTTP()
		return
	case err != nil:
		c.refuseQuietly(c.handshakeRefusal(err))
		return
	}
	if why := c.agree(hello); why != nil {
		c.refuseHello(why)
		return
	}
	c.flow.TLS = true
	if c.policy().Host(c.authority).Passthrough {
		c.spliceTunnel(hello)
		return
	}
	tc, why := c.terminate()
	if why != nil {
		c.refuseQuietly(why)
		return
	}
	c.serveTLS(tc)
}

// serveTransparentHTTP takes the name of a redirected plain connection from its
// first Host; every later request must name the same one.
func (c *conn) serveTransparentHTTP() {
	c.reader.Reset(&c.wire)
	defer c.reader.Release()
	for c.nextHead(&c.wire) {
		if c.authority.Host == "" {
			a, err := canon.ParseAuthority(string(c.head.Host), c.flow.OriginalDst.Port())
			if err == nil && a.Port != c.flow.OriginalDst.Port() {
				err = &canon.Error{Reason: "name_mismatch", Status: 421, Detail: "Host names another port than the connection's"}
			}
			if err != nil {
				c.refuseHead(&c.wire, refusalOf(err))
				return
			}
			c.authority = a
		}
		if !c.exchangeHTTP1(&c.wire) {
			return
		}
	}
}
