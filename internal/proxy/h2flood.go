package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// What an HTTP/2 client sends beside requests and their bodies is a few bytes to it,
// and to the engine a turn of two goroutines, which hand a processor to each other
// before anybody else's connection is looked at. So the heads of the frames that a
// client sends are counted, and where a principal sends more than the limits below,
// the connection that goes beyond them ends: resets (CVE-2023-44487), also those that
// the client makes the server send (CVE-2025-8671), SETTINGS, PING, PRIORITY, GOAWAY,
// CONTINUATION, DATA without a byte, WINDOW_UPDATE, and frames that nobody knows.
// HEADERS and bodies are what requests are limited by.
const (
	// Frames of a connection that are not counted: its settings, its windows and, of
	// some browsers, its priorities. A handshake costs the engine more.
	controlFree = 16
	// Frames of a principal above those, in a second and at once, by all its connections.
	// A cancelled request is one frame and with Go's client two, a gRPC keepalive
	// one in ten seconds, a browser that leaves a page some hundred at once.
	controlRate  = 2000
	controlBurst = 4000
	// … and after which a burst is whole again.
	controlMemory = controlBurst * time.Second / controlRate

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
	head  [frameHead]byte
	have  int   // bytes of it
	skip  int   // bytes of the frame that are still to come
	used  int64 // of earned
	free  int   // frames that were taken of controlFree
	ended bool
}

// Read implements net.Conn.
func (w *h2watch) Read(p []byte) (int, error) {
	if w.in.ended {
		return 0, errFlood
	}
	n, err := w.Conn.Read(p)
	if cost := w.in.see(p[:n]); cost > 0 && !w.pay(cost) {
		w.in.ended = true
		w.record(&refusal{
			status: 429, reason: "h2_flood",
			detail: fmt.Sprintf("resets, pings, settings and the like, more than %d a second; the connection is closed", controlRate),
		})
		return 0, errFlood
	}
	return n, err
}

// pay takes frames out of what the connection has free, then out of what its
// principal has.
func (w *h2watch) pay(frames int) bool {
	free := min(frames, controlFree-w.in.free)
	w.in.free += free
	return frames == free || w.owner.tally.control.take(w.owner.s.now(), frames-free)
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
		}
	}
	if f.blamed.Load() > 0 {
		cost += int(f.blamed.Swap(0))
	}
	return cost
}

// cost is 1 for a frame that is to be counted.
func (f *h2inbound) cost() int {
	switch f.head[3] {
	case frameHeaders:
		return 0
	case frameData:
		if f.skip > 0 || f.head[4]&flagEndStream != 0 {
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

// controls is what a principal may still send of control frames. The zero value
// is the whole burst. It is safe for concurrent use.
type controls struct {
	mu   sync.Mutex
	full time.Time // when the burst is whole again
}

// take reports whether frames may pass at now, and takes them if so.
func (c *controls) take(now time.Time, frames int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	full := c.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(time.Duration(frames) * (time.Second / controlRate))
	if full.Sub(now) > controlMemory {
		return false
	}
	c.full = full
	return true
}

// used reports whether anything was ever taken.
func (c *controls) used() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.full.IsZero()
}
