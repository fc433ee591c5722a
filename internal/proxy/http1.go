package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

type writer interface{ Write(p []byte) (int, error) }

// outSize is where pieces of an answer stop being gathered: one full TLS record.
const outSize = 16 << 10

// outs are not kept with a turn: one that is used only while an answer is written
// is in the cache, and one for each request in flight is not.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, outSize+1024); return &b }}

// h1client answers a client that speaks HTTP/1.
type h1client struct {
	c     *conn
	w     writer
	head  *http1.RequestHead
	keep  bool
	wrote bool

	mu    sync.Mutex // orders the 100, which an upload's goroutine sends, and the final answer
	waits bool       // the client waits for a 100 that was not sent
}

// exchangeHTTP1 carries the request whose head is in c.head and reports whether
// the connection goes on.
func (c *conn) exchangeHTTP1(rw net.Conn) bool {
	x := c.exchange()
	cl := &c.h1
	*cl = h1client{c: c, w: rw, head: &c.head, keep: c.head.KeepAlive}
	x.reset(c, cl, c.at)
	parsed := asRefusal(x.req.FromHTTP1(c.s.ids.Add(1), c.inbound(), &c.head))

	b := &x.body
	b.reset(c.s, x.reqHash)
	b.present = c.head.Framing != http1.NoBody
	if b.present {
		b.conn = &c.deadlines
		b.h1 = c.reader.Body(c.head.Framing, c.head.Length)
		b.known = c.head.Length
		if c.head.ExpectContinue {
			b.expect, cl.waits = cl.continues, true
		}
	}
	keep := x.serve(context.Background(), parsed)
	c.at = x.at
	if b.aborted.Load() {
		c.readBy = noDeadline // another goroutine has moved it
	}
	c.cutShort = !keep && cl.wrote && !x.whole
	if keep && !x.body.done() {
		c.lingers(rw) // the client may still be sending what the origin did not want
	}
	keep = keep && cl.keep && x.body.done()
	b.release()
	return keep
}

func (c *conn) inbound() canon.Inbound {
	return canon.Inbound{Kind: c.flow.Kind, Scheme: c.scheme, Authority: c.authority}
}

// continues is the engine's 100 to a client that asked for it. It is sent when
// the body is first wanted: after the verdict, never before (S13, B5).
// Behind a final answer it would be read as a part of it, so none is sent then.
func (cl *h1client) continues() error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if !cl.waits {
		return nil
	}
	cl.waits = false
	cl.deadline()
	_, err := cl.w.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err
}

func (cl *h1client) began() bool { return cl.wrote }

// final is called before a final answer is written and reports whether the
// client will not send its body, or not all of it: then the connection cannot
// be kept, and the answer says so (RFC 9110 section 10.1.1, RFC 9112 section 9.3).
func (cl *h1client) final(x *exchange, resp *upstream.Response) (unread bool) {
	cl.mu.Lock()
	waited := cl.waits
	cl.waits = false
	cl.mu.Unlock()
	if resp.Status >= 300 { // by which upstream has stopped the upload
		resp.EndUpload()
		return !x.body.done()
	}
	return waited
}

// deadline is for what is written before the answer, which two goroutines do.
func (cl *h1client) deadline() {
	stall := cl.c.s.limits.WriteStall
	_ = cl.c.tcp.SetWriteDeadline(cl.c.s.now().Add(stall + stall/2)) // no earlier than writeBy
}

// write writes a part of the answer.
func (cl *h1client) write(p []byte) error { return cl.writeAt(cl.c.s.now(), p) }

// writeAt is write for who has just looked at the clock.
func (cl *h1client) writeAt(now time.Time, p []byte) error {
	cl.wrote = true
	cl.c.allowWrite(now, cl.c.s.limits.WriteStall)
	tc, ok := cl.w.(*tls.Conn)
	socket := cl.c.socket()
	if !ok || len(p) <= outSize && socket == &cl.c.wire { // one record; below --listen-tls it is two
		_, err := cl.w.Write(p)
		return err
	}
	socket.cork()
	_, err := tc.Write(p)
	return errors.Join(err, socket.uncork())
}

func (cl *h1client) interim(status int, fields []http1.Field) error {
	if cl.head.Minor == 0 {
		return nil // RFC 9110 section 15.2: not to a 1.0 client
	}
	out := http1.AppendStatusLine(nil, status)
	out = append(appendRaw(out, fields), "\r\n"...)
	cl.deadline()
	_, err := cl.w.Write(out)
	return err
}

// bodiless reports an answer that has no body whatever its fields say
// (RFC 9112 section 6.3).
func bodiless(method string, status int) bool {
	return method == "HEAD" || status == 204 || status == 304 || status < 200
}

func (cl *h1client) relay(x *exchange, resp *upstream.Response) *refusal {
	pooled := outs.Get().(*[]byte)
	out := (*pooled)[:0]
	defer func() { *pooled = out[:0]; outs.Put(pooled) }()

	none := bodiless(x.req.Method, resp.Status)
	chunked := !none && resp.Length < 0 && cl.head.Minor == 1
	untilClose := !none && resp.Length < 0 && !chunked
	if cl.final(x, resp) || untilClose || cl.c.s.draining.Load() {
		cl.keep = false
	}
	out = http1.AppendStatusLine(out, resp.Status)
	out = appendRaw(out, resp.Fields)
	switch {
	case chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case resp.Length >= 0 && resp.Status != 204 && resp.Status >= 200:
		out = http1.AppendContentLength(out, resp.Length)
	}
	if !cl.keep {
		out = append(out, "Connection: close\r\n"...)
	} else if cl.head.Minor == 0 {
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, "\r\n"...)

	out, why := cl.relayBody(x, resp, out, chunked)
	if why != nil {
		return why
	}
	if why := x.complete(resp); why != nil {
		return why
	}
	if chunked {
		out = http1.AppendLastChunk(out, resp.Trailers())
	}
	if len(out) > 0 {
		if err := cl.writeAt(x.at, out); err != nil {
			cl.keep = false
		}
	}
	return nil
}

// relayBody passes the body on, each piece as it comes, and returns what may
// only be written when the end is recorded.
func (cl *h1client) relayBody(x *exchange, resp *upstream.Response, out []byte, chunked bool) ([]byte, *refusal) {
	left := resp.Length
	for {
		if len(out) > 0 && left != 0 && !resp.Buffered() {
			if err := cl.write(out); err != nil {
				return out, clientGone(err)
			}
			out = out[:0]
		}
		piece, err := resp.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, refusalOf(err)
		}
		x.respHash.Write(piece)
		if left > 0 {
			left -= int64(len(piece))
		}
		if chunked {
			out = http1.AppendChunkHead(out, len(piece))
		}
		// A piece is copied where that saves a write, and where it is the last:
		// it must outlive the record of its end.
		if len(out)+len(piece) > outSize && left != 0 && !chunked {
			if len(out) > 0 {
				if err := cl.write(out); err != nil {
					return out, clientGone(err)
				}
				out = out[:0]
			}
			if err := cl.write(piece); err != nil {
				return out, clientGone(err)
			}
			continue
		}
		out = append(out, piece...)
		if chunked {
			out = append(out, "\r\n"...)
		}
		if len(out) >= outSize && left != 0 {
			if err := cl.write(out); err != nil {
				return out, clientGone(err)
			}
			out = out[:0]
		}
	}
}

func clientGone(err error) *refusal {
	reason := "client_aborted"
	if isTimeout(err) {
		reason = "client_stalled"
	}
	return &refusal{status: 499, reason: reason, detail: err.Error(), failed: true, close: true}
}

// refuse answers with why. The connection is kept where the rest of the body
// is gone from it.
func (cl *h1client) refuse(x *exchange, why *refusal) {
	a := x.refusalAnswer(why)
	keep := cl.keep && !why.close && !cl.c.s.draining.Load() && x.body.drain()
	if !keep {
		why.close = true
	}
	out := http1.AppendStatusLine(nil, a.status)
	out = appendRaw(out, a.fields)
	out = http1.AppendContentLength(out, int64(len(a.body)))
	if !keep {
		out = append(out, "Connection: close\r\n"...)
	} else if cl.head.Minor == 0 {
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, "\r\n"...)
	if string(cl.head.Method) != "HEAD" {
		out = append(out, a.body...)
	}
	if err := cl.write(out); err != nil {
		why.close = true
	} else {
		x.whole = true
	}
	if !keep {
		cl.c.lingers(cl.w)
	}
}
