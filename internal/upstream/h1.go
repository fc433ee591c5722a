package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const (
	inlineBody = 16 << 10 // a body up to this goes out with its head, in one write
	maxInterim = 8        // 1xx answers to one request (row S19)
)

// conn is one HTTP/1.1 connection and the one exchange on it. It is used by one
// goroutine at a time, beside which an upload may write. Its buffers, the
// Response among them, are reused from exchange to exchange.
type conn struct {
	client     *Client
	host       *host // set by the pool before the first exchange
	w          *wire
	rw         net.Conn // TLS over w, or w
	tls        *tls.Conn
	addr       netip.AddrPort
	version    uint16 // TLS
	certWanted bool

	r    *http1.Reader
	head http1.ResponseHead
	res  Response
	body *http1.Body

	out, target, method []byte // what is sent
	uses                int
	since               time.Time // idle since; guarded by the pool
	readBy, writeBy     time.Time // deadlines that are set
	cutf                func()

	ctx      context.Context
	stop     func() bool // ends ctx's watch; nil: ctx cannot end
	permit   policy.Permit
	upload   *upload
	idleFor  time.Duration // between two reads of the body
	one      [1]byte       // what surplus reads into
	finished bool          // the response was read to its end
	checked  bool          // there is no surplus behind it
	broken   bool

	mu      sync.Mutex
	reading Body // what compose waits for; guarded by mu
}

func newConn(c *Client, w *wire, addr netip.AddrPort, s *secured) *conn {
	n := &conn{client: c, w: w, rw: w, addr: addr}
	if s != nil {
		n.rw, n.tls, n.version, n.certWanted = s.conn, s.conn, s.version, s.certWanted
	}
	n.r = http1.NewReader(n.rw)
	n.cutf = n.canceled
	return n
}

// cut ends the connection from any goroutine: reads and writes fail at once.
func (c *conn) cut() { _ = c.w.Close() }

// canceled is what the end of ctx does, in a goroutine of its own.
func (c *conn) canceled() {
	c.cut()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading != nil {
		c.reading.Abort()
	}
}

// close ends the connection from its own goroutine. No close_notify is sent:
// most closes are of a peer that misbehaved, and a write could stall.
func (c *conn) close() {
	c.broken = true
	_ = c.w.Close()
	c.r.Discard(len(c.r.Buffered()))
	c.r.Release()
	c.client.pool.forget(c)
}

// fresh reports that a connection from the pool can be used: the peer has
// neither closed nor said anything.
func (c *conn) fresh() bool { return len(c.r.Buffered()) == 0 && c.w.quiet() }

// surplus reports bytes behind a response that was read to its end, in the
// reader or in a TLS layer, the upstream proxy's included. The socket is looked at before the next use. A
// TLS connection that has ended, by a close_notify behind the response, is marked as
// broken.
func (c *conn) surplus() bool {
	if len(c.r.Buffered()) > 0 {
		return true
	}
	if c.tls == nil && c.w.under == nil || c.checked {
		return false
	}
	c.w.probing = true
	n, err := c.rw.Read(c.one[:])
	c.w.probing = false
	c.checked = true
	if _, quiet := err.(probeError); !quiet { //nolint:errorlint // comes as it is, and errors.As allocates
		c.broken = true
	}
	return n > 0
}

// allowRead gives the next read d, and at most half as much again: deadlines are
// moved only when they have come that much nearer.
func (c *conn) allowRead(d time.Duration) {
	now := c.client.pool.now()
	if left := c.readBy.Sub(now); left < d || left > 2*d {
		c.readBy = now.Add(d + d/2)
		_ = c.w.SetReadDeadline(c.readBy)
	}
}

func (c *conn) allowWrite(d time.Duration) {
	now := c.client.pool.now()
	if left := c.writeBy.Sub(now); left < d || left > 2*d {
		c.writeBy = now.Add(d + d/2)
		_ = c.w.SetWriteDeadline(c.writeBy)
	}
}

// exchange sends req and reads the head of its answer. On failure the
// connection is closed. unsent is then not nil if the connection had been used
// before and the kernel took not one byte of this request: it is all that was
// to be sent at first, for another connection's composed.
func (c *conn) exchange(ctx context.Context, p policy.Permit, req *canon.Request, o *SendOptions, composed []byte) (res *Response, unsent []byte, err error) {
	c.begin(ctx, p, req)
	c.r.Bound(o.Heads)
	c.r.BoundBodies(o.Pages)
	inline, err := c.compose(req, o, composed)
	if err == nil {
		res, unsent, err = c.perform(req, o, inline)
	}
	if err != nil {
		c.abandon()
		return nil, unsent, err
	}
	return res, nil, nil
}

func (c *conn) begin(ctx context.Context, p policy.Permit, req *canon.Request) {
	c.ctx, c.stop, c.permit, c.upload = ctx, nil, p, nil
	c.finished, c.checked = false, false
	c.idleFor = c.client.conf.BodyIdleTimeout
	if req.GRPC {
		c.idleFor = c.client.conf.StreamIdleTimeout
	}
	c.method = append(c.method[:0], req.Method...)
	if w, ok := ctx.(Watched); ok {
		c.stop = w.Watch(c.cutf)
	} else if ctx.Done() != nil {
		c.stop = context.AfterFunc(ctx, c.cutf)
	}
}

// abandon ends a failed exchange.
func (c *conn) abandon() {
	if c.stop != nil {
		c.stop()
	}
	c.close()
	c.upload.end()
}

// perform writes c.out, starts the upload if there is more, and reads the head.
func (c *conn) perform(req *canon.Request, o *SendOptions, inline bool) (*Response, []byte, error) {
	if c.ctx.Err() != nil {
		return nil, nil, gateway(ReasonCanceled, c.ctx.Err())
	}
	before := c.w.sent()
	if err := c.writeOut(); err != nil {
		if c.uses > 0 && c.ctx.Err() == nil && !timedOut(err) && c.w.sent() == before {
			return nil, c.out, err
		}
		return nil, nil, c.writeError(err)
	}
	c.uses++
	c.allowRead(c.client.conf.HeaderTimeout)
	interim := 0
	if !inline {
		c.upload = newUpload(c, req, o.Body)
		final, err := c.awaitContinue(req, o, &interim)
		if err != nil {
			return nil, nil, err
		}
		if final {
			res, err := c.respond(req)
			return res, nil, err
		}
		c.upload.start()
	}
	if err := c.readFinal(req, o, &interim); err != nil {
		return nil, nil, err
	}
	res, err := c.respond(req)
	return res, nil, err
}

// writeOut writes c.out in one write(2).
func (c *conn) writeOut() error {
	c.allowWrite(c.client.conf.WriteTimeout)
	if c.tls == nil || len(c.out) <= 16<<10 {
		_, err := c.rw.Write(c.out)
		return err
	}
	buf := c.client.bufs.Get().(*[]byte)
	defer c.client.bufs.Put(buf)
	c.w.cork(*buf)
	_, err := c.rw.Write(c.out)
	return errors.Join(err, c.w.uncork())
}

func (c *conn) writeError(err error) error {
	switch {
	case c.refusedCert(err):
		return gateway(ReasonClientCertWanted, err)
	case c.ctx.Err() != nil:
		return gateway(ReasonCanceled, c.ctx.Err())
	case timedOut(err):
		return fail(ReasonTimeout, http.StatusGatewayTimeout, "sending the request: "+err.Error(), err)
	default:
		return gateway(ReasonUpstreamClosed, err)
	}
}

// refusedCert reports that err is a server's way of saying that it does not do
// without a client certificate: in TLS 1.3 it says so after the handshake, by
// an alert that a reset may overtake.
func (c *conn) refusedCert(err error) bool {
	return c.certWanted && c.uses <= 1 && c.ctx.Err() == nil && !timedOut(err)
}

// awaitContinue waits, if the request expects it, for 100 Continue or for
// ContinueTimeout, whatever comes first (RFC 9110 section 10.1.1). final: the
// final answer came instead, and the body is not sent.
func (c *conn) awaitContinue(req *canon.Request, o *SendOptions, interim *int) (final bool, err error) {
	if !req.ExpectContinue {
		return false, nil
	}
	until := time.Now().Add(c.client.conf.ContinueTimeout)
	for {
		c.readBy = until
		_ = c.w.SetReadDeadline(until)
		err := c.r.Wait()
		c.allowRead(c.client.conf.HeaderTimeout)
		if timedOut(err) && c.ctx.Err() == nil {
			return false, nil
		}
		if err == nil {
			err = c.r.ReadResponse(&c.head, c.method)
		}
		if err != nil {
			return false, readError(c.ctx, err, false, c.certWanted)
		}
		if final, err := c.interimOrFinal(req, o, interim); final || err != nil || c.head.Status == http.StatusContinue {
			return final, err
		}
	}
}

// readFinal reads up to the head of the final answer.
func (c *conn) readFinal(req *canon.Request, o *SendOptions, interim *int) error {
	for {
		err := c.r.ReadResponse(&c.head, c.method)
		if err != nil && timedOut(err) && c.ctx.Err() == nil && c.upload.running() && len(c.r.Buffered()) == 0 {
			// The time of the answer begins when the request has ended; until
			// then, the upload's own deadlines apply.
			c.allowRead(c.client.conf.HeaderTimeout)
			continue
		}
		if err != nil {
			// What broke the upload is the cause, where something did: it cut
			// the connection.
			if uerr := c.upload.cause(); uerr != nil && c.ctx.Err() == nil {
				return uerr
			}
			started := len(c.r.Buffered()) > 0 || errors.Is(err, io.ErrUnexpectedEOF)
			if !started && !isHTTP(err) && c.refusedCert(err) {
				return gateway(ReasonClientCertWanted, err)
			}
			return readError(c.ctx, err, started, c.certWanted)
		}
		final, err := c.interimOrFinal(req, o, interim)
		if final || err != nil {
			return err
		}
	}
}

// isHTTP reports that err is about what was read, not about reading.
func isHTTP(err error) bool {
	var he *http1.Error
	return errors.As(err, &he)
}

// interimOrFinal judges the head just read and relays it if it is interim.
func (c *conn) interimOrFinal(req *canon.Request, o *SendOptions, interim *int) (final bool, err error) {
	h := &c.head
	switch {
	case h.Status == http.StatusSwitchingProtocols:
		if req.Upgrade != canon.WebSocket || !bytes.EqualFold(h.Upgrade, []byte("websocket")) {
			return false, badResponse("a 101 that nobody asked for")
		}
		return true, nil
	case h.Status >= 200:
		return true, nil
	}
	if *interim++; *interim > maxInterim {
		return false, badResponse(fmt.Sprintf("more than %d interim answers", maxInterim))
	}
	if h.Status == http.StatusContinue || o.OnInterim == nil {
		return false, nil
	}
	c.res.Fields = endToEnd(c.res.Fields[:0], h.Fields)
	if err := o.OnInterim(h.Status, c.res.Fields); err != nil {
		return false, fail(ReasonCanceled, http.StatusBadGateway, "relaying an interim answer: "+err.Error(), err)
	}
	return false, nil
}

func badResponse(detail string) *Error {
	return fail(ReasonBadResponse, http.StatusBadGateway, detail, nil)
}

// respond makes the Response of the final head.
func (c *conn) respond(req *canon.Request) (*Response, error) {
	h := &c.head
	c.body = c.r.Body(h.Framing, h.Length)
	c.finished = c.body.Done()
	buffered := int64(len(c.r.Buffered()))
	// Bytes behind the answer that came with it (row S19).
	switch {
	case h.Status == http.StatusSwitchingProtocols:
	case h.Framing == http1.NoBody, h.Framing == http1.Length && buffered >= h.Length:
		extra := buffered > max(h.Length, 0) || h.Framing == http1.NoBody && buffered > 0
		if extra || h.Framing == http1.NoBody && h.KeepAlive && c.surplus() {
			return nil, badResponse("bytes after the end of the answer")
		}
	}
	if h.Status >= 300 {
		c.upload.stop()
	}
	res := &c.res
	*res = Response{
		Status: h.Status, Fields: endToEnd(res.Fields[:0], h.Fields), Framing: h.Framing, Length: h.Length,
		Proto: "HTTP/1.1", Addr: c.addr, TLSVersion: c.version, Reused: c.uses > 1, c: c,
	}
	if h.Minor == 0 {
		res.Proto = "HTTP/1.0"
	}
	if h.Framing == http1.Chunked || h.Framing == http1.UntilClose {
		res.Length = -1
	}
	return res, nil
}

// next reads the response's body.
func (c *conn) next() ([]byte, error) {
	if c.finished {
		return nil, io.EOF
	}
	if c.broken {
		return nil, errClosed
	}
	if !c.body.Buffered() {
		c.allowRead(c.idleFor)
	}
	p, err := c.body.Next()
	if err == nil {
		return p, nil
	}
	// crypto/tls reports the end of TCP at a record's boundary like a
	// close_notify (row T15).
	if err == io.EOF && c.head.Framing == http1.UntilClose && c.tls != nil && c.w.sawEOF {
		err = io.ErrUnexpectedEOF
	}
	if err == io.EOF {
		c.finished = true
		return p, err
	}
	if uerr := c.upload.cause(); uerr != nil && c.ctx.Err() == nil {
		err = uerr
	}
	c.broken = true
	c.cut()
	return nil, readError(c.ctx, err, true, c.certWanted)
}

// done ends the exchange and gives the connection back if nothing is left on
// it, in either direction.
func (c *conn) done() {
	watched := c.stop == nil || c.stop()
	if !c.finished {
		c.cut() // before the upload is waited for, which may be in a write
	}
	sent := c.upload.end()
	keep := watched && sent && c.finished && c.head.KeepAlive && c.head.Framing != http1.UntilClose &&
		c.head.Status != http.StatusSwitchingProtocols && !c.surplus() && !c.broken
	c.ctx, c.permit, c.upload, c.stop = nil, policy.Permit{}, nil, nil
	if !keep {
		c.close()
		return
	}
	c.r.Release()
	if cap(c.out) > 2*inlineBody {
		c.out = nil
	}
	kept, out := c.client.pool.put(c)
	if !kept {
		c.close()
	}
	if out != nil {
		out.close()
	}
}
