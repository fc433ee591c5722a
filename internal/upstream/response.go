package upstream

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// errClosed answers who reads on after the end of an exchange.
var errClosed = errors.New("upstream: the response was closed")

// Response is the answer to one request. Over HTTP/1.1 it is part of its
// connection: it and what it returned are gone with Close, and the same memory
// is the Response of a later request. One goroutine uses it; to end it from another, cancel
// Send's context.
type Response struct {
	Status int
	// Fields are the end-to-end fields in their order; what is for one hop
	// (Connection, Transfer-Encoding, …), Content-Length and Alt-Svc are not
	// among them. Valid until Close.
	Fields  []http1.Field
	Framing http1.Framing // NoBody, Length, or what ends only with the stream
	// Length is what Content-Length said (for HEAD and 304 of a body that does
	// not follow), -1 if it said nothing.
	Length     int64
	Proto      string // HTTP/1.0, HTTP/1.1, HTTP/2.0
	Addr       netip.AddrPort
	TLSVersion uint16 // 0 over plain TCP
	Reused     bool   // the connection carried another request before

	c *conn
	s *stream
}

// Next returns the next bytes of the body as soon as there are any, valid until
// the next call; at the end nil and io.EOF. Any other error is an *Error, and the
// connection (over HTTP/2 the stream) is closed.
func (r *Response) Next() ([]byte, error) {
	switch {
	case r.c != nil:
		return r.c.next()
	case r.s != nil:
		return r.s.next()
	default:
		return nil, errClosed
	}
}

// Buffered reports that Next will not block.
func (r *Response) Buffered() bool {
	switch {
	case r.c != nil:
		return r.c.finished || r.c.broken || r.c.body.Buffered()
	case r.s != nil:
		return r.s.err != nil
	default:
		return true
	}
}

// Trailers returns the trailer fields, after io.EOF; what Fields leaves out is not
// among them either. Valid until Close.
func (r *Response) Trailers() []http1.Field {
	switch {
	case r.c != nil && r.c.finished:
		return goOn(r.c.body.Trailers())
	case r.s != nil:
		return goOn(r.s.trailers)
	default:
		return nil
	}
}

// goOn returns the trailers that go on to the client. Those for one hop were
// refused: gRPC reads a refusal's fields and an answer's trailers in one place.
func goOn(trailers []http1.Field) []http1.Field {
	stays := func(f http1.Field) bool { return ours(f.Name) || http1.EqualFold(f.Name, "alt-svc") }
	if !slices.ContainsFunc(trailers, stays) {
		return trailers
	}
	return slices.DeleteFunc(slices.Clone(trailers), stays)
}

// EndUpload ends what is still being sent of the request's body, and waits for
// it: from here on the Body is no longer in use. It is for a caller that has
// read the answer to its end and wants to know the body's.
func (r *Response) EndUpload() {
	switch {
	case r.c != nil:
		r.c.upload.end()
	case r.s != nil:
		r.s.body.finish()
	}
}

// Close ends the exchange. The connection goes back to the pool if request and
// answer both ended exactly, else it is closed. An upload that still runs is
// stopped and waited for. A second call does nothing as long as no other
// request uses the connection.
func (r *Response) Close() {
	c, s := r.c, r.s
	r.c, r.s = nil, nil
	switch {
	case c != nil:
		c.done()
	case s != nil:
		s.close()
	}
}

// Hijack hands the connection over after a 101. early is what the peer sent
// right behind its answer. The caller closes conn; Close is still to be called
// and leaves it alone. The context of Send no longer ends it. Fields is nil
// afterwards: what it lay in is another connection's by then.
func (r *Response) Hijack() (conn net.Conn, early []byte, err error) {
	c := r.c
	if c == nil || r.Status != http.StatusSwitchingProtocols {
		return nil, nil, errors.New("upstream: only the connection of a 101 can be taken over")
	}
	r.c, r.Fields = nil, nil
	early = append([]byte(nil), c.r.Buffered()...)
	c.r.Discard(len(early))
	c.r.Release()
	c.client.pool.forget(c)
	if c.stop != nil && !c.stop() {
		_ = c.w.Close()
		return nil, nil, gateway(ReasonCanceled, c.ctx.Err())
	}
	return c.rw, early, c.rw.SetDeadline(time.Time{})
}

// endToEnd appends to dst the fields that go on to the client.
func endToEnd(dst, fields []http1.Field) []http1.Field {
	named := false
	for i := range fields {
		named = named || http1.EqualFold(fields[i].Name, "connection")
	}
	for i := range fields {
		f := &fields[i]
		if ours(f.Name) || http1.HopByHop(f.Name) || http1.EqualFold(f.Name, "content-length") || http1.EqualFold(f.Name, "alt-svc") ||
			named && http1.ConnectionNames(fields, f.Name) {
			continue
		}
		dst = append(dst, *f)
	}
	return dst
}

// ours reports a field that only the engine may send: an origin must not be
// able to make its answer look like a refusal, or a refusal's absence.
func ours(name []byte) bool {
	const prefix = "x-aegrail-"
	return len(name) > len(prefix) && http1.EqualFold(name[:len(prefix)], prefix)
}
