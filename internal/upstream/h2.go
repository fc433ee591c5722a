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
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const (
	// What an upstream may make us hold: the default is 1 GiB a connection. An
	// origin that takes one stream on each has one for every request, so those that are
	// in use beside the first of a principal have the least that HTTP/2 allows.
	streamWindow     = 1 << 20
	connectionWindow = 3 << 20
	wideConnections  = 32
	narrowWindow     = 64 << 10

	pingAfter   = 30 * time.Second // without a frame
	pingTimeout = 15 * time.Second
)

// h2conn is an HTTP/2 connection, shared by the streams of one key. The
// protocol is net/http's; the connection beneath is one that we dialled, judged
// and verified.
type h2conn struct {
	client  *Client
	host    *host // guarded by pool.mu
	cc      *http.ClientConn
	addr    netip.AddrPort
	version uint16
	wide    bool // it may hold much
	used    atomic.Bool
	retired atomic.Bool // to be closed when the last stream ends
}

// dialled is the key of the *tls.Conn that the transport's DialTLSContext returns.
type dialled struct{}

func newTransport(c Config, stream, connection int) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if conn, ok := ctx.Value(dialled{}).(*tls.Conn); ok {
				return conn, nil
			}
			return nil, errors.New("upstream: the HTTP/2 transport does not dial")
		},
		Protocols:              protocols,
		DisableCompression:     true,
		IdleConnTimeout:        c.IdleTimeout,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		ExpectContinueTimeout:  c.ContinueTimeout,
		MaxResponseHeaderBytes: http1.MaxHead,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     stream,
			MaxReceiveBufferPerConnection: connection,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
			WriteByteTimeout:              c.WriteTimeout,
		},
	}
}

// newH2 makes a client connection of s, with one stream reserved.
func (c *Client) newH2(ctx context.Context, principal string, t target, addr netip.AddrPort, s *secured) (*h2conn, error) {
	transport := c.narrow
	wide, out := c.pool.wide(principal)
	if wide {
		transport = c.transport
	}
	if out != nil {
		out.retire()
	}
	cc, err := transport.NewClientConn(context.WithValue(ctx, dialled{}, s.conn), "https", t.String())
	if err != nil {
		_ = s.conn.NetConn().Close()
		return nil, gateway(ReasonDialFailed, err)
	}
	h := &h2conn{client: c, cc: cc, addr: addr, version: s.version, wide: wide}
	if err := cc.Reserve(); err != nil {
		_ = cc.Close()
		return nil, gateway(ReasonUpstreamClosed, err)
	}
	cc.SetStateHook(h.changed)
	return h, nil
}

// changed is called by net/http after a stream ended or the connection closed.
func (h *h2conn) changed(cc *http.ClientConn) {
	if h.retired.Load() && cc.InFlight() == 0 {
		_ = cc.Close()
	}
	h.client.pool.drop(h)
}

// retire closes h after its last stream.
func (h *h2conn) retire() {
	h.retired.Store(true)
	if h.cc.InFlight() == 0 {
		_ = h.cc.Close()
	}
}

// stream is one exchange on an h2conn.
type stream struct {
	client   *Client
	parent   context.Context
	ctx      context.Context
	cancel   context.CancelCauseFunc
	resp     *http.Response
	body     *h2body
	idle     *time.Timer
	idleFor  time.Duration
	buf      *[]byte
	pages    http1.Allowance // buf is taken of it; nil: no bound
	heads    http1.Allowance // … and the head
	head     int             // bytes taken for it
	none     bool            // the answer has no body
	err      error           // sticky
	trailers []http1.Field
}

var errIdle = errors.New("no byte of the body for too long")

// sendH2 sends req on a reserved stream of h.
func (c *Client) sendH2(ctx context.Context, h *h2conn, p policy.Permit, req *canon.Request, o *SendOptions) (*Response, error) {
	s := &stream{client: c, parent: ctx, body: newH2Body(c, p, req, o.Body), idleFor: c.conf.BodyIdleTimeout, heads: o.Heads, pages: o.Pages}
	if req.GRPC {
		s.idleFor = c.conf.StreamIdleTimeout
	}
	hr, err := s.request(req)
	if err != nil {
		h.cc.Release()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	if ctx.Err() != nil {
		h.cc.Release()
		s.close()
		return nil, gateway(ReasonCanceled, ctx.Err())
	}
	in := &interims{client: c, send: o.OnInterim, cancel: s.cancel}
	hr = hr.WithContext(httptrace.WithClientTrace(s.ctx, &httptrace.ClientTrace{Got1xxResponse: in.got}))
	reused := h.used.Swap(true)
	s.resp, err = h.cc.RoundTrip(hr)
	in.finish()
	if err == nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	if err != nil {
		err = s.failure(err, false)
		s.close()
		return nil, err
	}
	res, err := s.response(h, req)
	if err != nil {
		s.close()
		return nil, err
	}
	res.Reused = reused
	return res, nil
}

// request is req for net/http. Opaque is such that it takes exactly
// req.Target for :path, also where that begins with "//".
func (s *stream) request(req *canon.Request) (*http.Request, error) {
	host := string(req.HostHeader(nil))
	header := make(http.Header, len(req.Fields)+2)
	for i := range req.Fields {
		f := &req.Fields[i]
		if http1.HopByHop(f.Name) || http1.EqualFold(f.Name, "expect") {
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(string(f.Name))
		header[name] = append(header[name], string(f.Value))
	}
	switch agents := header["User-Agent"]; {
	case len(agents) > 1:
		// net/http sends the first alone; that is not what was judged.
		return nil, fail(ReasonUnsendable, http.StatusBadRequest, "more than one User-Agent", nil)
	case len(agents) == 0:
		header["User-Agent"] = nil // nothing is added
	}
	if req.TETrailers {
		header["Te"] = []string{"trailers"}
	}
	hr := &http.Request{
		Method: req.Method,
		URL:    &url.URL{Scheme: "https", Host: host, Opaque: "https://" + host + string(req.Target(nil))},
		Host:   host,
		Header: header,
	}
	if s.body.src == nil {
		if req.Framing == http1.Chunked || req.Framing == http1.Length && req.Length > 0 {
			return nil, fail(ReasonUnsendable, http.StatusInternalServerError, "the request declares a body and has none", nil)
		}
		return hr, nil
	}
	hr.Body, hr.ContentLength = s.body, -1
	if req.Framing == http1.Length {
		hr.ContentLength = req.Length
	}
	if hr.ContentLength == 0 { // which to net/http means that it is not known, if there is a Body
		hr.Body = nil
		switch p, err := s.body.src.Next(); {
		case len(p) > 0 || err == nil:
			return nil, fail(ReasonRequestAborted, http.StatusBadRequest, "the body is not as long as declared", nil)
		case err != io.EOF:
			return nil, bodyError(err)
		}
		s.body.ended.Store(true)
		return hr, nil
	}
	if req.ExpectContinue {
		header["Expect"] = []string{"100-continue"}
	}
	if req.Framing == http1.Chunked || req.HTTP2 {
		hr.Trailer = s.body.trailer
	}
	return hr, nil
}

// response is net/http's answer for our caller.
func (s *stream) response(h *h2conn, req *canon.Request) (*Response, error) {
	r := s.resp
	if !s.takeHead() {
		return nil, fail(ReasonNoRoom, http.StatusServiceUnavailable, "as many large heads of answers as may be held are there", nil)
	}
	lengths := r.Header["Content-Length"]
	if len(lengths) > 1 || len(lengths) == 1 && r.ContentLength < 0 && !isLength(lengths[0]) {
		return nil, badResponse("Content-Length that is not one number")
	}
	res := &Response{
		Status: r.StatusCode, Fields: endToEnd(nil, fieldsOf(r.Header)), Length: r.ContentLength,
		Proto: "HTTP/2.0", Addr: h.addr, TLSVersion: h.version, s: s,
	}
	switch {
	case r.StatusCode == http.StatusSwitchingProtocols:
		return nil, badResponse("a 101 over HTTP/2")
	case r.StatusCode < 200 || r.StatusCode > 999:
		return nil, badResponse("status out of range")
	case req.Method == http.MethodHead, r.StatusCode == http.StatusNotModified:
		s.none = true
		if len(lengths) == 0 {
			res.Length = -1
		}
	case r.StatusCode == http.StatusNoContent:
		s.none, res.Length = true, -1
	case r.ContentLength >= 0:
		res.Framing = http1.Length
	default:
		res.Framing = http1.Chunked
	}
	if !s.none {
		s.takeBuf()
		s.idle = time.AfterFunc(s.idleFor, func() { s.cancel(errIdle) })
		s.idle.Stop()
	}
	return res, nil
}

func isLength(s string) bool {
	return s != "" && len(s) < 19 && strings.Trim(s, "0123456789") == ""
}

// fieldsOf returns h sorted by name: HTTP/2's own order is not kept by net/http.
func fieldsOf(h http.Header) []http1.Field {
	out := make([]http1.Field, 0, len(h))
	for name, values := range h {
		for _, v := range values {
			out = append(out, http1.Field{Name: []byte(name), Value: []byte(v)})
		}
	}
	slices.SortStableFunc(out, func(a, b http1.Field) int { return bytes.Compare(a.Name, b.Name) })
	return out
}

func (s *stream) next() ([]byte, error) {
	switch {
	case s.err != nil:
		return nil, s.err
	case s.none:
		return nil, io.EOF
	}
	s.idle.Reset(s.idleFor)
	n, err := s.resp.Body.Read(*s.buf)
	s.idle.Stop()
	if err == io.EOF {
		s.err = s.end()
	} else if err != nil {
		s.err = s.failure(err, true)
		s.cancel(errClosed)
	}
	if n > 0 {
		return (*s.buf)[:n], nil
	}
	return nil, s.err
}

// end takes the trailers of an answer that was read to its end.
func (s *stream) end() error {
	if len(s.resp.Trailer) > 0 {
		s.trailers = fieldsOf(s.resp.Trailer)
	}
	for _, f := range s.trailers {
		if http1.HopByHop(f.Name) || http1.EqualFold(f.Name, "content-length") || http1.EqualFold(f.Name, "host") ||
			http1.EqualFold(f.Name, "set-cookie") {
			s.trailers = nil
			return badResponse("a trailer that means something only before the body")
		}
	}
	return io.EOF
}

// close ends the stream, with RST_STREAM unless both sides have ended.
func (s *stream) close() {
	if s.idle != nil {
		s.idle.Stop()
	}
	if s.resp != nil {
		_ = s.resp.Body.Close()
	}
	if s.cancel != nil {
		s.cancel(errClosed)
	}
	s.body.finish()
	s.giveBack()
}

// streamError has the shape of net/http's own, which is not exported but
// converts itself to any type of this shape by errors.As.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream %d: code %d", e.StreamID, e.Code) }

const codeRefusedStream = 7 // RFC 9113 section 7

// unprocessed are net/http's words for a request of which the peer provably
// processed nothing: GOAWAY with a lower last stream, and a connection that
// was no longer usable before a stream was opened. The errors are not exported.
func unprocessed(err error) bool {
	text := err.Error()
	return strings.Contains(text, "graceful shutdown GOAWAY") || strings.Contains(text, "http2: client conn not usable") ||
		strings.Contains(text, "http2: client conn could not be established")
}

// failure names what ended a stream. started: the head of the answer was read.
func (s *stream) failure(err error, started bool) *Error {
	if berr := s.body.cause.Load(); berr != nil {
		return bodyError(*berr)
	}
	var e *Error
	var se streamError
	cause := context.Cause(s.ctx)
	switch {
	case s.parent.Err() != nil:
		return gateway(ReasonCanceled, s.parent.Err())
	case errors.As(cause, &e):
		return e
	case errors.Is(cause, errIdle):
		return fail(ReasonTimeout, http.StatusGatewayTimeout, errIdle.Error(), err)
	case errors.As(err, &se):
		return s.reset(se, err, started)
	case !started && unprocessed(err):
		e = gateway(ReasonRefused, err)
		e.Retry = !s.body.touched.Load()
		return e
	case strings.Contains(err.Error(), "request header list larger"):
		return fail(ReasonUnsendable, http.StatusBadGateway, "the request's head is larger than the upstream accepts", err)
	case strings.Contains(err.Error(), "declared Content-Length"):
		return fail(ReasonBadResponse, http.StatusBadGateway, "more bytes than Content-Length said", err)
	default:
		return readError(s.ctx, err, started, false)
	}
}

func (s *stream) reset(se streamError, err error, started bool) *Error {
	fromPeer := se.Cause == nil || strings.Contains(se.Cause.Error(), "received from peer")
	switch {
	case fromPeer && se.Code == codeRefusedStream:
		e := gateway(ReasonRefused, err)
		e.Retry = !started && !s.body.touched.Load()
		return e
	case !fromPeer: // net/http did not accept what it read
		return gateway(ReasonBadResponse, err)
	default:
		return gateway(ReasonReset, err)
	}
}

// interims passes 1xx answers on. net/http reports them in the goroutine that
// reads for all of the connection's streams, which must not wait for a client:
// a goroutine of our own relays them, and exists only where there are any.
type interims struct {
	client *Client
	send   func(int, []http1.Field) error
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	queue chan interim
	done  chan struct{}
	count int
	over  bool
}

type interim struct {
	status int
	fields []http1.Field
}

func (i *interims) got(status int, header textproto.MIMEHeader) (err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	defer func() {
		if e := i.client.recovered(recover()); e != nil {
			err = e
		}
	}()
	if i.count++; i.count > maxInterim || status == http.StatusSwitchingProtocols {
		return badResponse("interim answers that nobody asked for")
	}
	if i.over || i.send == nil || status == http.StatusContinue {
		return nil
	}
	if i.queue == nil {
		i.queue, i.done = make(chan interim, maxInterim), make(chan struct{})
		go i.relay()
	}
	i.queue <- interim{status, endToEnd(nil, fieldsOf(http.Header(header)))}
	return nil
}

func (i *interims) relay() {
	defer close(i.done)
	defer func() {
		if e := i.client.recovered(recover()); e != nil {
			i.cancel(e)
		}
	}()
	for m := range i.queue {
		if err := i.send(m.status, m.fields); err != nil {
			i.cancel(fail(ReasonCanceled, http.StatusBadGateway, "relaying an interim answer: "+err.Error(), err))
			break
		}
	}
}

// finish waits until no call of send is under way and lets none begin.
func (i *interims) finish() {
	i.mu.Lock()
	i.over = true
	if i.queue != nil {
		close(i.queue)
	}
	i.mu.Unlock()
	if i.done != nil {
		<-i.done
	}
}
