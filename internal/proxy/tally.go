package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// tally counts what one principal has under way: requests, WebSockets and
// tunnels, and what it may send of HTTP/2's control frames. It lives as long as one
// of the principal's connections or requests, and where such frames were sent for
// controlWindow longer.
type tally struct {
	underway atomic.Int64
	streams  atomic.Int64  // of HTTP/2, as the client sees them (h2streams.go)
	turns    chan struct{} // one for each request that a condition judges now
	control  controls
	little   controls
	conns    int         // guarded by tallies.mu
	forget   *time.Timer // … of the last connection to leave that left frames behind; nil: there was none
}

// tallies are the principals that have a connection, or had one a moment ago.
type tallies struct {
	mu sync.Mutex
	of map[string]*tally // :: principal → its tally, as many as there were connections within controlWindow at most
}

// join counts one more connection of the principal, or returns nil where it has most.
func (t *tallies) join(principal string, most int) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.of[principal]
	if y != nil && y.conns >= most {
		return nil
	}
	if y == nil {
		y = &tally{turns: make(chan struct{}, maxJudged)}
		t.of[principal] = y
	}
	y.conns++
	return y
}

func (t *tallies) leave(principal string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.of[principal]
	if y == nil {
		return
	}
	y.conns--
	switch {
	case y.conns > 0:
	case !y.control.used() && y.underway.Load() == 0:
		delete(t.of, principal)
	case y.forget == nil:
		y.forget = time.AfterFunc(controlWindow, func() { t.drop(principal) })
	default:
		y.forget.Reset(controlWindow)
	}
}

// drop forgets a principal whose connections have ended a while ago. One that comes
// back at once finds what it had left of its frames, and not all of them again.
func (t *tallies) drop(principal string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.of[principal]
	switch {
	case y == nil || y.conns > 0:
	case y.underway.Load() > 0: // streams whose connection has ended
		y.forget.Reset(controlWindow)
	default:
		delete(t.of, principal)
	}
}

// enter takes a place among what the principal of x has under way. Where it
// returns nil, x.c.tally.leave gives the place back.
func (x *exchange) enter() *refusal {
	most := int64(x.s.limits.ExchangesPerPrincipal)
	if x.c.tally.underway.Add(1) <= most && x.c.tally.streams.Load() <= most {
		return nil
	}
	x.c.tally.leave()
	return &refusal{
		status: 503, reason: "too_many_exchanges", retryAfter: time.Second, full: true,
		detail: "this agent has as many requests under way as it may have at once",
	}
}

func (y *tally) leave() { y.underway.Add(-1) }

// maxJudged is how many requests of a principal conditions judge at once. A
// condition takes up to a tenth of a second of a processor; and what a body
// becomes that it reads, unpacked and parsed, may be five thousand times as large
// as it came (10 KiB, 50 MiB). Neither waits for anything: all at once would not be
// done sooner, and who else is served would wait for all.
const maxJudged = 2

// inTurn calls judge when there is a turn for it.
func (y *tally) inTurn(judge func()) {
	y.turns <- struct{}{}
	defer func() { <-y.turns }()
	judge()
}

// parsedMost is what a body may become that a condition looks at.
const parsedMost = 50 << 20

// maxParsed is how many bodies are parsed at once for all principals together: no
// more than there are processors, and than fit half of the memory; two at least.
func maxParsed(memory int64, processors int) int {
	return max(2, int(min(memory/2/parsedMost, int64(processors))))
}

// parse calls judge, which parses a body, when there is a place for it. Who waits
// gets one in the order of coming; and since a principal has maxJudged turns, it has
// no more than that in the queue, however many of its requests wait behind them.
func (s *Server) parse(judge func()) {
	s.parsing <- struct{}{}
	defer func() { <-s.parsing }()
	judge()
}
