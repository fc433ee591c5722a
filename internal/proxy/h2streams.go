package proxy

import (
	"slices"
	"sync"
)

// A stream outlives its exchange where the client gives no window for the end of its
// answer: the answer is made and recorded, and net/http keeps it, and a goroutine,
// until the client takes it. So what a principal has of streams is counted on the
// wire, from the request's head to the end of the answer or a reset. Beyond
// Limits.ExchangesPerPrincipal a request is refused; where the refusals are not taken
// either, and there are crowd times as many, the connection ends (h2_flood).
const crowd = 2

// h2streams are the streams of a connection that have begun and not ended. It is
// safe for concurrent use: one goroutine reads frames, another writes them.
type h2streams struct {
	of *tally // the principal's; set before the first

	mu   sync.Mutex
	open []uint32
	last uint32 // the latest that has begun
	over bool   // the connection has ended
}

// begin counts a stream, unless its head is only trailers, and returns how
// many the principal has.
func (h *h2streams) begin(stream uint32) (all int64, trailers bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || stream <= h.last {
		return h.of.streams.Load(), true
	}
	h.last = stream
	h.open = append(h.open, stream)
	return h.of.streams.Add(1), false
}

// end is told of each stream that ends, by either side, once or more.
func (h *h2streams) end(stream uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.open, stream); i >= 0 {
		h.open[i] = h.open[len(h.open)-1]
		h.open = h.open[:len(h.open)-1]
		h.of.streams.Add(-1)
	}
}

// endAll is the end of the connection.
func (h *h2streams) endAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of != nil {
		h.of.streams.Add(-int64(len(h.open)))
	}
	h.open, h.over = nil, true
}
