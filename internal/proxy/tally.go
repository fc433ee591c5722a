package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// tally counts what one principal has under way: requests, WebSockets and
// tunnels. It lives as long as one of the principal's connections.
type tally struct {
	underway atomic.Int64
	conns    int // guarded by tallies.mu
}

// tallies are the principals that have a connection.
type tallies struct {
	mu sync.Mutex
	of map[string]*tally // :: principal → its tally, as many as there are connections at most
}

func (t *tallies) join(principal string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.of[principal]
	if y == nil {
		y = new(tally)
		t.of[principal] = y
	}
	y.conns++
	return y
}

func (t *tallies) leave(principal string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if y := t.of[principal]; y != nil {
		if y.conns--; y.conns == 0 {
			delete(t.of, principal)
		}
	}
}

// enter takes a place among what the principal of x has under way. Where it
// returns nil, x.c.tally.leave gives the place back.
func (x *exchange) enter() *refusal {
	if x.c.tally.underway.Add(1) <= int64(x.s.limits.ExchangesPerPrincipal) {
		return nil
	}
	x.c.tally.leave()
	return &refusal{
		status: 503, reason: "too_many_exchanges", retryAfter: time.Second,
		detail: "this agent has as many requests under way as it may have at once",
	}
}

func (y *tally) leave() { y.underway.Add(-1) }
