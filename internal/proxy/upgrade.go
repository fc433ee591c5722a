package proxy

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 names SHA-1; nothing rests on its strength
	"encoding/base64"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

const (
	// websocketGUID is RFC 6455 section 1.3's.
	websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	closeWait     = 2 * time.Second // for the other side's close frame
)

// closeFromServer and closeFromClient are a close frame with status 1002 (RFC 6455
// section 7.4.1), as a server and as a client send it (the mask is zero: it hides
// nothing here).
var (
	closeFromServer = []byte{0x88, 2, 0x03, 0xEA}
	closeFromClient = []byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xEA}
)

// checkUpgrade refuses an opening handshake that is not RFC 6455's to the
// letter (section 4.2.1), before it is judged or sent.
func (x *exchange) checkUpgrade() *refusal {
	switch x.req.Upgrade {
	case canon.NoUpgrade:
		return nil
	case canon.WebSocket:
	default:
		return &refusal{status: 400, reason: "bad_upgrade", detail: "only a WebSocket can be upgraded to", close: true}
	}
	key, keys := field(x.req.Fields, "sec-websocket-key")
	version, versions := field(x.req.Fields, "sec-websocket-version")
	raw, err := base64.StdEncoding.Strict().DecodeString(string(key))
	if x.req.Method != "GET" || x.req.Framing != http1.NoBody || x.req.HTTP2 ||
		keys != 1 || err != nil || len(raw) != 16 || versions != 1 || string(version) != "13" {
		return &refusal{status: 400, reason: "bad_upgrade", detail: "not an opening handshake of RFC 6455", close: true}
	}
	return nil
}

// field is the value of the last field of that name, and how many there are.
func field(fields []http1.Field, lower string) (value []byte, n int) {
	for _, f := range fields {
		if http1.EqualFold(f.Name, lower) {
			value = f.Value
			n++
		}
	}
	return value, n
}

// acceptKey is what a server answers to key (RFC 6455 section 4.2.2).
func acceptKey(key []byte) string {
	sum := sha1.Sum(append(bytes.Clone(key), websocketGUID...)) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// checkAccept refuses a 101 that is not the answer to this handshake.
func (x *exchange) checkAccept(resp *upstream.Response) (deflate bool, why *refusal) {
	key, _ := field(x.req.Fields, "sec-websocket-key")
	accept, n := field(resp.Fields, "sec-websocket-accept")
	if n != 1 || string(accept) != acceptKey(key) {
		return false, badSwitch("Sec-WebSocket-Accept is not the answer to the key")
	}
	offered, _ := field(x.req.Fields, "sec-websocket-extensions")
	chosen, n := field(resp.Fields, "sec-websocket-extensions")
	if n == 0 {
		return false, nil
	}
	name, _, _ := bytes.Cut(chosen, []byte(";"))
	if n != 1 || string(bytes.TrimSpace(name)) != "permessage-deflate" || bytes.IndexByte(chosen, ',') >= 0 ||
		!bytes.Contains(offered, []byte("permessage-deflate")) {
		return false, badSwitch("the origin chose an extension that was not offered")
	}
	return true, nil
}

func badSwitch(detail string) *refusal {
	return &refusal{status: 502, reason: "bad_upgrade", detail: detail, failed: true, close: true}
}

// upgrade carries a WebSocket after the origin's 101, frame by frame.
func (cl *h1client) upgrade(x *exchange, resp *upstream.Response) *refusal {
	cl.keep = false
	deflate, why := x.checkAccept(resp)
	if why != nil {
		return why
	}
	out := http1.AppendStatusLine(nil, 101)
	out = append(appendRaw(out, resp.Fields), "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"...)
	up, early, err := resp.Hijack() // the fields are gone with it
	if err != nil {
		return badSwitch(err.Error())
	}
	defer up.Close()
	stop := context.AfterFunc(x.ctx, func() { _ = rawOf(up).Close() }) // Send's no longer ends it
	defer stop()
	client, ok := cl.w.(net.Conn)
	if !ok {
		return badSwitch("the client's connection cannot be taken over")
	}
	if err := cl.write(out); err != nil {
		return clientGone(err)
	}
	open := x.s.cfg.Metrics.Stream(metrics.WebSocket)
	open.Inc()
	defer open.Dec()
	w := &websocket{s: x.s, idle: x.s.limits.TunnelIdle, pages: &x.answers}
	w.touch(x.s.now())
	limit := x.s.limits.FrameBytes
	toOrigin := &half{w: w, src: client, dst: up, hash: x.reqHash, early: bytes.Clone(cl.c.reader.Buffered()),
		frames: frames{masked: true, deflate: deflate, limit: limit}}
	toClient := &half{w: w, src: up, dst: client, hash: x.respHash, early: early,
		frames: frames{deflate: deflate, limit: limit}}
	return cl.relayFrames(x, toOrigin, toClient)
}

// relayFrames runs both directions to their end and records it.
func (cl *h1client) relayFrames(x *exchange, toOrigin, toClient *half) *refusal {
	ended := make(chan *half, 2)
	for _, h := range []*half{toOrigin, toClient} {
		go func() {
			h.err = x.s.guarded(h.run)
			ended <- h
		}()
	}
	first := <-ended
	wait := closeWait
	if x.cut.Load() || first.err != nil {
		wait = 0 // there is no close to wait for
	}
	toOrigin.w.closeBy.Store(x.s.now().Add(wait).UnixNano())
	toOrigin.w.ending.Store(true)
	toOrigin.deadline()
	toClient.deadline()
	second := <-ended
	if errors.Is(first.err, errFrame) || errors.Is(second.err, errFrame) {
		toOrigin.complain(closeFromClient)
		toClient.complain(closeFromServer)
	}
	var why *refusal
	switch {
	case x.cut.Load():
		why = x.cutReason()
	case errors.Is(first.err, errFrame), errors.Is(second.err, errFrame):
		bad := first
		if !errors.Is(first.err, errFrame) {
			bad = second
		}
		why = &refusal{status: 502, reason: "bad_frame", detail: bad.err.Error(), failed: true, close: true}
	case isTimeout(first.err):
		why = &refusal{status: 504, reason: "websocket_idle", failed: true, close: true}
	}
	if why != nil {
		return why
	}
	x.fillEnd()
	x.rec.Truncated = !first.frames.closed
	if err := x.s.cfg.Log.Complete(&x.rec); err != nil {
		return unrecorded(err)
	}
	x.completed, x.whole = true, true
	x.s.cfg.Metrics.Observe(&x.rec)
	return nil
}

// websocket is what the two directions share: when a byte last passed.
type websocket struct {
	s     *Server
	idle  time.Duration
	pages *room[string]
	last  atomic.Int64 // unix nanoseconds

	ending  atomic.Bool  // one direction is over; the other has until closeBy
	closeBy atomic.Int64 // unix nanoseconds
}

func (w *websocket) touch(now time.Time) { w.last.Store(now.UnixNano()) }

// quiet is how long nothing has passed.
func (w *websocket) quiet(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - w.last.Load())
}

// half is one direction of a WebSocket.
type half struct {
	w        *websocket
	src, dst net.Conn
	early    []byte
	writeBy  time.Time // the deadline of dst's writes, as it is set
	hash     *digest.Hash
	frames   frames
	inside   bool // what was passed on ends inside a frame
	closed   bool // … or behind a close frame
	err      error
}

var errFrame = errors.New("not a WebSocket frame")

// run relays until the source ends. Nothing is passed on that was not checked.
func (h *half) run() error {
	piece := takePiece(h.w.pages)
	defer givePiece(h.w.pages, piece)
	if err := h.pass(h.early); err != nil {
		return err
	}
	h.deadline()
	for {
		n, err := h.src.Read(*piece)
		if passErr := h.pass((*piece)[:n]); passErr != nil {
			return passErr
		}
		if err != nil {
			if isTimeout(err) && !h.w.ending.Load() && h.w.quiet(h.w.s.now()) < h.w.idle {
				h.deadline() // something has passed since it was set
				continue
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// deadline bounds the reads from now on. It is not moved by what passes, but set
// anew where it was reached and something had passed. A late call cannot undo the
// end: ending is looked at after the deadline is set.
func (h *half) deadline() {
	now := h.w.s.now()
	_ = h.src.SetReadDeadline(now.Add(h.w.idle - h.w.quiet(now)))
	if h.w.ending.Load() {
		_ = h.src.SetReadDeadline(now.Add(time.Duration(h.w.closeBy.Load() - now.UnixNano())))
	}
}

// complain tells the receiver of this direction that the protocol was broken,
// where a frame of ours would not stand inside another. Both directions are over.
func (h *half) complain(frame []byte) {
	if h.inside || h.closed {
		return
	}
	_ = h.dst.SetWriteDeadline(h.w.s.now().Add(time.Second))
	_, _ = h.dst.Write(frame)
}

func (h *half) pass(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := h.frames.check(p); err != nil {
		return errors.Join(errFrame, err)
	}
	h.inside, h.closed = h.frames.have != 0 || h.frames.left != 0, h.frames.closed
	h.hash.Write(p)
	now, stall := h.w.s.now(), h.w.s.limits.WriteStall
	h.w.touch(now)
	if h.writeBy.Sub(now) < stall { // and at most half as much again, as for an HTTP/1 client
		h.writeBy = now.Add(stall + stall/2)
		_ = h.dst.SetWriteDeadline(h.writeBy)
	}
	_, err := h.dst.Write(p)
	return err
}
