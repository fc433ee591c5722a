package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

// What an HTTP/2 client sends beside requests and their bodies is a few bytes to it,
// and to the engine a turn of two goroutines, which hand a processor to each other
// before anybody else's connection is looked at. So the heads of the frames that a
// client sends are counted: resets (CVE-2023-44487), also those that the client makes
// the server send (CVE-2025-8671), SETTINGS, PING, PRIORITY, GOAWAY, CONTINUATION,
// DATA without a byte, WINDOW_UPDATE, and frames that nobody knows. HEADERS and bodies
// are what requests are limited by. The rules are:
//
//   - a principal has Limits.ControlFrames a second, by all its connections, and
//     twice as many at once (controlWindow);
//   - what comes beyond that waits until it is due, and the client with it: it is
//     slowed down, not turned away. An engine that was slow itself, or did not run for a
//     while, finds much at once that came in good time, and nobody pays for that
//     with a connection;
//   - a connection for which two such bursts had to wait, and never so long a pause
//     came that the budget was whole again, is a flood, and ends (h2_flood);
//   - a body in pieces of a byte is a body. Little pieces have a budget that no honest
//     client comes near, and what comes beyond it is slowed down and no more.
const (
	// controlWindow is how long a principal's budget takes to be whole again.
	controlWindow = 2 * time.Second
	// controlNap is the shortest wait: a frame that is due sooner passes.
	controlNap = 10 * time.Millisecond
	// controlHeld is how many bursts of a connection may wait.
	controlHeld = 2

	// A client that streams messages of a few bytes sends some thousand a second.
	littleSize   = 256    // bytes of a DATA frame that is a little piece
	littleRate   = 50_000 // of them that a principal may send in a second
	littleBatch  = 32     // … that a connection takes of it at a time
	littleWindow = 100 * time.Millisecond

	controlPerReset = 8 // frames that a reset counts for

	// A client answers a body that it gets with windows, and gRPC measures the path
	// with a ping meanwhile: frames that go with DATA are not counted. The most
	// diligent client known is Go's, with two updates for 4 KiB.
	controlPerData  = 3       // WINDOW_UPDATE and PING for each DATA frame
	controlPerBytes = 512     // … and another one for so many bytes of it
	controlAhead    = 1 << 16 // … as long as they come before so many more
)

var errFlood = errors.New("HTTP/2: more control frames than a client may send")

// h2inbound follows the frames that a client sends. It looks at the nine bytes that
// begin each, keeps nothing of what they hold, and allocates nothing.
type h2inbound struct {
	earned atomic.Int64 // frames that go with what was sent
	blamed atomic.Int64 // streams that were reset for what the client did, not yet counted

	// Owned by who reads.
	head   [frameHead]byte
	have   int   // bytes of it
	skip   int   // bytes of the frame that are still to come
	used   int64 // of earned
	held   int   // frames that had to wait since the budget was whole
	little int   // little frames, not yet counted
	ended  bool

	tell      func(kind byte, stream uint32) // called with each frame; nil: nobody
	inTrailer bool                           // the latest header block was trailers
	trailer   int                            // … and their bytes; more than there may be end the connection
	crowded   bool                           // the principal has more streams than it may have
}

// Read implements net.Conn.
func (w *h2watch) Read(p []byte) (int, error) {
	if w.in.ended {
		return 0, errFlood
	}
	n, err := w.Conn.Read(p)
	if err := w.take(p[:n]); err != nil {
		return 0, err
	}
	return n, err
}

// take counts what was read, and waits until it is due. An error is the end of
// the connection.
func (w *h2watch) take(p []byte) error {
	cost := w.in.see(p)
	switch {
	case w.in.trailer > http1.MaxTrailer:
		return w.end(&refusal{status: 400, reason: "bad_trailer", detail: fmt.Sprintf("trailers of more than %d bytes; the connection is closed", http1.MaxTrailer)})
	case w.in.crowded:
		return w.flood(fmt.Sprintf("more than %d streams whose answers are not taken; the connection is closed", crowd*w.owner.s.limits.ExchangesPerPrincipal))
	}
	if cost > 0 {
		if err := w.pay(cost); err != nil {
			return err
		}
	}
	if w.in.little < littleBatch {
		return nil
	}
	wait, _ := w.owner.tally.little.take(w.owner.s.now(), w.in.little, littleRate, littleWindow)
	w.in.little = 0
	return w.rest(wait)
}

// Close implements net.Conn. It wakes a Read that waits for what it has read to
// be due.
func (w *h2watch) Close() error {
	w.closing.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// pay takes frames out of what the principal may send, and waits until they are
// due. An error is the end of the connection.
func (w *h2watch) pay(frames int) error {
	c := w.owner
	limit := c.s.limits.ControlFrames
	wait, whole := c.tally.control.take(c.s.now(), frames, limit, controlWindow)
	if whole {
		w.in.held = 0
	}
	if wait <= 0 {
		return nil
	}
	if w.in.held += frames; w.in.held > controlHeld*burst(limit) {
		return w.flood(fmt.Sprintf("resets, pings, settings and the like, more than %d a second; the connection is closed", limit))
	}
	return w.rest(wait)
}

func (w *h2watch) flood(detail string) error {
	return w.end(&refusal{status: 429, reason: "h2_flood", detail: detail})
}

// end records why the connection ends.
func (w *h2watch) end(why *refusal) error {
	w.in.ended = true
	w.record(why)
	return errFlood
}

// stream is told of the frames that begin a stream or end it. Trailers are a second
// head, which net/http holds like the first: their bytes are counted as they come.
func (w *h2watch) stream(kind byte, stream uint32) {
	switch kind {
	case frameHeaders:
		all, trailers := w.streams.begin(stream)
		w.in.crowded = w.in.crowded || all > int64(crowd*w.owner.s.limits.ExchangesPerPrincipal)
		w.in.inTrailer = trailers
		w.in.trailer = 0
		fallthrough
	case frameContinuation:
		if w.in.inTrailer {
			w.in.trailer += w.in.skip
		}
	case frameRST:
		w.streams.end(stream)
	}
}

// rest waits, unless it is not worth it or the connection ends.
func (w *h2watch) rest(wait time.Duration) error {
	if wait < controlNap {
		return nil
	}
	due := time.NewTimer(wait)
	defer due.Stop()
	select {
	case <-due.C:
		return nil
	case <-w.closed:
	case <-w.owner.s.over: // what is left is cut
	}
	return net.ErrClosed
}

// see follows the frames in p and returns how many are to be counted.
func (f *h2inbound) see(p []byte) (cost int) {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(len(p), f.skip)
			f.skip, p = f.skip-n, p[n:]
			continue
		}
		n := copy(f.head[f.have:], p)
		f.have, p = f.have+n, p[n:]
		if f.have == frameHead {
			f.have, f.skip = 0, frameLength(&f.head)
			cost += f.cost()
			if f.tell != nil {
				f.tell(f.head[3], binary.BigEndian.Uint32(f.head[5:])&(1<<31-1))
			}
		}
	}
	if f.blamed.Load() > 0 {
		cost += int(f.blamed.Swap(0)) * controlPerReset
	}
	return cost
}

// cost is what a frame counts for: 1, or 0 if it is not counted. A reset undoes a
// request for which a record was written and perhaps a connection opened.
func (f *h2inbound) cost() int {
	switch f.head[3] {
	case frameRST:
		return controlPerReset
	case frameHeaders:
		return 0
	case frameData:
		switch {
		case f.head[4]&flagEndStream != 0:
			return 0
		case f.skip >= littleSize:
			return 0
		case f.skip > 0:
			f.little++
			return 0
		}
	case framePing, frameWindowUpdate:
		earned := f.earned.Load()
		f.used = max(f.used, earned-controlAhead)
		if f.used < earned {
			f.used++
			return 0
		}
	}
	return 1
}

// sent is told of each DATA frame that the server writes.
func (f *h2inbound) sent(length int) { f.earned.Add(int64(controlPerData + length/controlPerBytes)) }

// reset is told of each RST_STREAM that the server writes. One with STREAM_CLOSED
// may be honest, and is no matter for a record, but a client can earn it without end.
func (f *h2inbound) reset(code uint32) {
	if code == codeStreamClosed || h2code(code) != "" {
		f.blamed.Add(1)
	}
}

func frameLength(head *[frameHead]byte) int {
	return int(binary.BigEndian.Uint32(head[:]) >> 8)
}

// burst is how many frames a principal may send at once that may send limit a second.
func burst(limit int) int { return limit * int(controlWindow/time.Second) }

// controls is what a principal may still send of control frames. The zero value
// is the whole budget. It is safe for concurrent use.
type controls struct {
	mu   sync.Mutex
	full time.Time // when the budget is whole again
}

// take takes frames of a budget of limit a second, or of what that makes in window
// at once. It returns how long they must wait, if that is more than 0, and whether the
// budget was whole before.
func (c *controls) take(now time.Time, frames, limit int, window time.Duration) (wait time.Duration, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if whole = !c.full.After(now); whole {
		c.full = now
	}
	c.full = c.full.Add(time.Duration(frames) * time.Second / time.Duration(limit))
	return c.full.Sub(now) - window, whole
}

// used reports whether anything was ever taken.
func (c *controls) used() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.full.IsZero()
}
