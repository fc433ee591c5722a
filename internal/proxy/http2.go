package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// What an HTTP/2 client may send before anybody wants it is held by the engine:
// a frame of the largest size as soon as its head is there, and a connection's
// window of bodies. So a connection has wide windows while there is room for them
// (Server.windows), and beyond that narrow ones, which are slower for a large body
// over a long way and for nothing else. A connection's window is four streams'.
type windows struct{ connection, stream, frame int }

var (
	wideWindows   = windows{connection: 1 << 20, stream: 256 << 10, frame: 256 << 10} // a frame that we call allowed must fit the stream's window
	narrowWindows = windows{connection: 64 << 10, stream: 16 << 10, frame: 16 << 10}  // the least that RFC 9113 allows
)

// most is what a connection may hold by them.
func (w windows) most() int64 { return int64(w.connection + w.frame) }

// http2Server is the standard library's server for connections whose handshake
// is done. It gets the *tls.Conn itself: behind a wrapper it would speak
// HTTP/1, with a parser that is not ours (but see h2watch).
func (s *Server) http2Server(w windows) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:        http.HandlerFunc(s.serveHTTP2),
		Protocols:      protocols,
		MaxHeaderBytes: http1.MaxHead,
		IdleTimeout:    s.limits.Idle,
		ErrorLog:       slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          s.limits.Streams,
			MaxReceiveBufferPerConnection: w.connection,
			MaxReceiveBufferPerStream:     w.stream,
			MaxReadFrameSize:              w.frame,
			SendPingTimeout:               s.limits.Idle,
			WriteByteTimeout:              s.limits.WriteStall,
		},
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, ownerKey{}, ownerOf(nc))
		},
		ConnState: func(nc net.Conn, st http.ConnState) {
			if c := ownerOf(nc); c != nil && (st == http.StateClosed || st == http.StateHijacked) {
				s.forget(c)
			}
		},
	}
}

// h2side is a server for HTTP/2 and the way to it.
type h2side struct {
	*http.Server
	in *handover
}

// newH2Side makes a server of which nothing runs yet.
func (s *Server) newH2Side(w windows) (*h2side, error) {
	side := &h2side{s.http2Server(w), newHandover()}
	err := canon.ExposeScheme(side.Server)
	if err == nil {
		err = s.watchHTTP2(side.Server)
	}
	if err != nil {
		return nil, fmt.Errorf("preparing the HTTP/2 server: %w", err)
	}
	return side, nil
}

// startHTTP2 starts the servers for HTTP/2.
func (s *Server) startHTTP2() (err error) {
	if s.wide, err = s.newH2Side(wideWindows); err != nil {
		return err
	}
	if s.narrow, err = s.newH2Side(narrowWindows); err != nil {
		return err
	}
	for _, side := range []*h2side{s.wide, s.narrow} {
		s.wg.Go(func() {
			// Serve returns when the hand-over is closed; it owns no listener of the system.
			_ = side.Serve(side.in)
		})
	}
	return nil
}

// stopHTTP2 lets what is under way finish until ctx is done.
func (s *Server) stopHTTP2(ctx context.Context) error {
	narrow := make(chan error)
	go func() { narrow <- s.narrow.Shutdown(ctx) }()
	err := errors.Join(s.wide.Shutdown(ctx), <-narrow)
	_ = s.narrow.in.Close() // cannot fail
	_ = s.wide.in.Close()
	return err
}

// handOver gives a connection to the server whose windows there is room for. It
// reports false when the engine stops.
func (c *conn) handOver(tc *tls.Conn) bool {
	side, most := c.s.narrow, wideWindows.most()
	if c.s.windows.take(c.principalID, most) {
		side, c.window = c.s.wide, most
	}
	return side.in.give(tc)
}

type ownerKey struct{}

func ownerOf(nc net.Conn) *conn {
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return nil
	}
	w, ok := tc.NetConn().(*wire)
	if !ok {
		return nil
	}
	return w.owner
}

// serveHTTP2 carries one stream.
func (s *Server) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(ownerKey{}).(*conn)
	if c == nil || r.ProtoMajor != 2 {
		// A request that did not come through a connection of ours has no
		// principal, no agreed name and no record: it does not exist.
		panic(http.ErrAbortHandler)
	}
	c.watch.handled.Add(1)
	x, _ := s.exchanges.Get().(*exchange)
	cl := &h2client{s: s, w: w, r: r, ctl: http.NewResponseController(w)}
	x.reset(c, cl, s.now())
	parsed := asRefusal(x.req.FromHTTP2(s.ids.Add(1), c.inbound(), r))
	head, room := c.takeHead(r)
	if !room {
		parsed = tooManyHeads()
		forgetHead(r)
	}
	defer c.heads.Give(head)
	b := &x.body
	b.reset(s, x.reqHash)
	b.present = r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
	if b.present {
		b.h2, b.h2ctl, b.known, b.pages = r, cl.ctl, r.ContentLength, &x.answers
	}
	keep := x.serve(r.Context(), parsed)
	b.release()
	forgetHead(r)
	broken, grpc := !keep && cl.wrote, x.req.GRPC
	x.c, x.client, x.view = nil, nil, nil
	s.exchanges.Put(x)
	switch {
	case broken && grpc && r.Context().Err() == nil:
		// A gRPC client makes INTERNAL of a reset, and UNAVAILABLE is the truth.
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "14")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "aegrail: the call broke off upstream")
	case broken:
		panic(http.ErrAbortHandler) // RST_STREAM: the answer must not look whole
	}
}

// h2client answers one HTTP/2 stream.
type h2client struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	ctl   *http.ResponseController
	wrote bool

	stalled atomic.Bool // the client took nothing for too long
}

// streamStall is how many times WriteStall a stream may stand still. Its window may be
// 64 KiB, and who reads an event and works on it for a minute has it full, where over
// HTTP/1 the kernel's buffers take megabytes meanwhile.
const streamStall = 4

// stall ends a stream whose client has taken nothing for as long as it may. A call of
// gRPC may stand still for longer: who cannot follow holds its messages back so. It
// is called with c.mu held, before the handler returns.
func (cl *h2client) stall(x *exchange, now time.Time) {
	most := streamStall * x.s.limits.WriteStall
	if x.req.GRPC {
		most = max(most, x.s.limits.TunnelIdle)
	}
	since := x.writes.Load()
	if since == 0 || now.UnixNano()-since < int64(most) || cl.stalled.Swap(true) {
		return
	}
	_ = cl.ctl.SetWriteDeadline(time.Unix(1, 0)) // which resets the stream
}

// write passes a piece of the answer on. That is up to 66 KiB where the origin is faster
// than the client, and who takes a KiB of it in a second takes something: each 16 KiB
// have WriteStall. To write them one by one would cost a hand-over each.
func (cl *h2client) write(x *exchange, piece []byte) error {
	more := time.Duration(len(piece)/outSize) * x.s.limits.WriteStall
	x.writes.Store(x.s.now().Add(more).UnixNano())
	_, err := cl.w.Write(piece)
	x.writes.Store(0)
	return err
}

// gone is why an answer could not be written.
func (cl *h2client) gone(err error) *refusal {
	if cl.stalled.Load() {
		err = fmt.Errorf("the client takes nothing: %w", os.ErrDeadlineExceeded)
	}
	return clientGone(err)
}

func (cl *h2client) began() bool { return cl.wrote }

func (cl *h2client) interim(status int, fields []http1.Field) error {
	if status == http.StatusContinue {
		return nil // the server sends it when the body is read
	}
	h := cl.w.Header()
	copyFields(h, fields)
	cl.w.WriteHeader(status)
	clear(h)
	return nil
}

// copyFields sets fields in h. Values were checked by the codec that read them.
// All text is one string, and the lists of one value are parts of one slice.
func copyFields(h http.Header, fields []http1.Field) {
	size := 0
	for i := range fields {
		size += len(fields[i].Name) + len(fields[i].Value)
	}
	var text strings.Builder
	text.Grow(size)
	for i := range fields {
		text.Write(fields[i].Name)
		text.Write(fields[i].Value)
	}
	rest, values := text.String(), make([]string, len(fields))
	for i := range fields {
		n, end := len(fields[i].Name), len(fields[i].Name)+len(fields[i].Value)
		name := textproto.CanonicalMIMEHeaderKey(rest[:n])
		values[i], rest = rest[n:end], rest[end:]
		if have := h[name]; have != nil {
			h[name] = append(have, values[i])
		} else {
			h[name] = values[i : i+1 : i+1]
		}
	}
}

func (cl *h2client) relay(x *exchange, resp *upstream.Response) *refusal {
	h := cl.w.Header()
	copyFields(h, resp.Fields)
	for _, name := range [...]string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil // what the origin did not send is not made up
		}
	}
	none := bodiless(x.req.Method, resp.Status)
	// A 304 may say how long what it does not send would be, but Go's client
	// takes that for a body that is missing (RFC 9113 section 8.1.1 says not to).
	if resp.Length >= 0 && resp.Status != 204 && resp.Status != 304 && resp.Status >= 200 {
		h.Set("Content-Length", strconv.FormatInt(resp.Length, 10))
	}
	if none {
		if why := x.complete(resp); why != nil {
			return why
		}
		cl.wrote = true
		cl.w.WriteHeader(resp.Status)
		return nil
	}
	return cl.relayBody(x, resp)
}

func (cl *h2client) relayBody(x *exchange, resp *upstream.Response) *refusal {
	left := resp.Length
	if left != 0 {
		cl.wrote = true
		cl.w.WriteHeader(resp.Status)
	}
	pooled, _ := outs.Get().(*[]byte)
	last := (*pooled)[:0]
	defer func() { *pooled = last[:0]; outs.Put(pooled) }()
	for {
		if left != 0 && !resp.Buffered() {
			x.writes.Store(x.s.now().UnixNano())
			err := cl.ctl.Flush()
			x.writes.Store(0)
			if err != nil {
				return cl.gone(err)
			}
		}
		piece, err := resp.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return refusalOf(err)
		}
		x.respHash.Write(piece)
		if left > 0 {
			if left -= int64(len(piece)); left == 0 {
				last = append(last, piece...)
				continue
			}
		}
		if err := cl.write(x, piece); err != nil {
			return cl.gone(err)
		}
	}
	if why := x.complete(resp); why != nil {
		return why
	}
	if !cl.wrote {
		cl.wrote = true
		cl.w.WriteHeader(resp.Status)
	}
	for _, f := range resp.Trailers() {
		cl.w.Header().Add(http.TrailerPrefix+string(f.Name), string(f.Value))
	}
	// The record of the end is written; a client that is gone changes nothing.
	_, _ = cl.w.Write(last)
	return nil
}

func (cl *h2client) refuse(x *exchange, why *refusal) {
	a := x.refusalAnswer(why)
	h := cl.w.Header()
	clear(h)
	copyFields(h, a.fields)
	if !a.trailer {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	h["Date"] = nil
	if why.ends {
		h.Set("Connection", "close") // GOAWAY
	}
	cl.w.WriteHeader(a.status)
	if cl.r.Method != http.MethodHead {
		_, _ = cl.w.Write(a.body)
	}
	if !a.trailer && !why.full && !x.body.done() {
		cl.lingers()
	}
}

// lingers reads what a refused client is still sending: some wait for their
// window and not for the answer, and would hang on the early end of the stream.
func (cl *h2client) lingers() {
	_ = cl.ctl.Flush()
	piece, _ := scraps.Get().(*[]byte)
	defer scraps.Put(piece)
	lingerRead(cl.r.Body, cl.ctl.SetReadDeadline, lingerStallH2, *piece, cl.s.now)
}

func (cl *h2client) upgrade(*exchange, *upstream.Response) *refusal {
	return &refusal{status: 502, reason: "bad_response", detail: "the origin switched protocols on an HTTP/2 request", failed: true}
}
