package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// minBodyRate is what a body of known length must come at, in bytes a second,
// after bodyGrace (R1, slow body). A body of unknown length may pause: gRPC
// and long uploads do.
const (
	minBodyRate = 256
	bodyGrace   = 30 * time.Second
	h2Piece     = 32 << 10
)

var pieces = sync.Pool{New: func() any { b := make([]byte, h2Piece); return &b }}

// body is the request's body on its way from the client: counted, hashed,
// limited, and read once. It implements upstream.Body; at any time one
// goroutine reads it.
type body struct {
	now     func() time.Time
	hash    *digest.Hash
	conn    *deadlines    // HTTP/1: where they are set
	h1      *http1.Body   // HTTP/1 source, or nil
	h2      *http.Request // HTTP/2 source, or nil
	h2ctl   *http.ResponseController
	piece   *[]byte       // HTTP/2: pooled
	pages   *room[string] // … of which it is taken
	expect  func() error  // sends 100 Continue; nil once sent or not asked for
	limit   int64         // 0: none
	known   int64         // declared length, -1 unknown, 0 none
	stall   time.Duration
	fixed   time.Time // deadline of the whole, for a judged body
	readBy  time.Time // HTTP/2: the deadline that is set
	started time.Time // when the first was waited for
	got     int64
	ended   bool
	err     error
	memory  []byte // a judged body, to be sent
	replays bool
	present bool
	aborted atomic.Bool
	fields  []http1.Field // trailers of HTTP/2
}

func (b *body) reset(s *Server, hash *digest.Hash) {
	*b = body{now: s.now, hash: hash, stall: s.limits.BodyStall, fields: b.fields[:0]}
}

// Next returns the next bytes, valid until the next call, or io.EOF.
func (b *body) Next() ([]byte, error) {
	if b.replays {
		p := b.memory
		b.memory = nil
		if len(p) == 0 {
			return nil, io.EOF
		}
		return p, nil
	}
	if b.err != nil {
		return nil, b.err
	}
	if b.ended {
		return nil, io.EOF
	}
	if b.expect != nil {
		send := b.expect
		b.expect = nil
		if err := send(); err != nil {
			b.err = err
			return nil, err
		}
	}
	p, err := b.read()
	b.got += int64(len(p))
	b.hash.Write(p)
	switch {
	case b.limit > 0 && b.got > b.limit:
		b.err = &refusal{status: 413, reason: "body_too_large", close: true}
		return nil, b.err
	case err == io.EOF:
		b.ended = true
	case err != nil:
		b.err = err
		return nil, err
	}
	return p, err
}

func (b *body) read() ([]byte, error) {
	b.deadline()
	if b.h1 != nil {
		return b.h1.Next()
	}
	if b.piece == nil {
		b.piece = takePiece(b.pages)
	}
	n, err := b.h2.Body.Read(*b.piece)
	return (*b.piece)[:n], err
}

// deadline gives the next read its time: the whole body's where a rule waits
// for it, else the stall limit, and no longer than the least rate allows.
func (b *body) deadline() {
	if b.h1 != nil && b.h1.Buffered() {
		return
	}
	at := b.fixed
	if at.IsZero() {
		now := b.now()
		if b.started.IsZero() {
			b.started = now
		}
		at = now.Add(b.stall)
		if b.known > 0 {
			if slowest := b.started.Add(bodyGrace + time.Duration(b.got/minBodyRate)*time.Second); slowest.Before(at) {
				at = slowest
			}
		} else if b.h2 != nil {
			return // a bidirectional stream may be silent
		}
	}
	if b.conn != nil {
		b.conn.readUntil(at)
	} else if b.h2ctl != nil && b.readBy.Before(at) {
		// The server's own goroutine moves it, so that is asked for once in many
		// reads: the client gets half as much again.
		if b.readBy = at; b.fixed.IsZero() {
			b.readBy = at.Add(at.Sub(b.now()) / 2)
		}
		_ = b.h2ctl.SetReadDeadline(b.readBy)
	}
	if b.aborted.Load() {
		b.Abort() // its deadline may just have been moved
	}
}

// Trailers returns the fields after the last chunk.
func (b *body) Trailers() []http1.Field {
	if b.h1 != nil {
		return b.h1.Trailers()
	}
	if b.h2 == nil {
		return nil
	}
	b.fields = appendFields(b.fields[:0], b.h2.Trailer)
	return b.fields
}

// Abort makes a Next that another goroutine waits in return.
func (b *body) Abort() {
	b.aborted.Store(true)
	if b.conn != nil {
		b.conn.stopRead()
	} else if b.h2ctl != nil {
		_ = b.h2ctl.SetReadDeadline(time.Unix(1, 0))
	}
}

// by sets a deadline for the whole body.
func (b *body) by(t time.Time) { b.fixed = t }

// replay makes p, which was read and hashed, what Next returns.
func (b *body) replay(p []byte) {
	b.memory, b.replays = p, true
}

// forUpstream is the body as upstream wants it: nil where there is none.
func (b *body) forUpstream() upstream.Body {
	if !b.present {
		return nil
	}
	return b
}

// done reports that nothing of the body is left on the connection.
func (b *body) done() bool { return !b.present || b.ended && b.err == nil }

// touched reports that bytes of the body were handed out and are gone.
func (b *body) touched() bool {
	return b.got > 0 && !b.replays || b.replays && b.memory == nil && b.got > 0
}

// failure is why the body could not be read to its end, or nil.
func (b *body) failure() *refusal {
	if b.err == nil {
		return nil
	}
	return b.refusal(b.err)
}

func (b *body) refusal(err error) *refusal {
	var why *refusal
	if errors.As(err, &why) {
		return why
	}
	var bad *http1.Error
	switch {
	case errors.As(err, &bad):
		return &refusal{status: bad.Status, reason: bad.Reason, detail: bad.Detail, close: true}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{status: 408, reason: "body_timeout", detail: "the request's body came too slowly", close: true}
	default:
		return &refusal{status: 400, reason: "client_aborted", detail: err.Error(), failed: true, close: true}
	}
}

// drain reads what is left of a refused body so that the connection can be
// kept, up to maxDrain bytes that are there soon.
func (b *body) drain() bool {
	if b.done() {
		return true
	}
	if b.err != nil || b.expect != nil || b.h1 == nil {
		return false
	}
	b.fixed = b.now().Add(drainWait)
	b.limit = b.got + maxDrain
	for {
		if _, err := b.Next(); err != nil {
			return err == io.EOF
		}
	}
}

// release gives pooled memory back.
func (b *body) release() {
	if b.piece != nil {
		givePiece(b.pages, b.piece)
		b.piece = nil
	}
	b.memory, b.h1, b.h2, b.h2ctl, b.conn, b.expect = nil, nil, nil, nil, nil, nil
}

const (
	maxDrain  = 64 << 10 // DESIGN 4: a refusal keeps the connection if the body drains within this
	drainWait = 2 * time.Second
)

func appendFields(dst []http1.Field, h http.Header) []http1.Field {
	for name, values := range h {
		for _, v := range values {
			dst = append(dst, http1.Field{Name: []byte(name), Value: []byte(v)})
		}
	}
	return dst
}
