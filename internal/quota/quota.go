// Package quota counts: the clock and the counters that package policy does not
// have.
//
// A policy.Limit is counted for each principal by itself, under the limit's
// scope (policy and rule), so one agent's use costs that agent only.
//
// # Rates
//
// A rate is a token bucket. "30/min" is a bucket of 30 tokens that is full at
// first and gets one back every two seconds. So 30 requests may come at once,
// then one every two seconds; within any minute at most 60, over a day 30 a
// minute. A refused request takes no token.
//
// # Requests
//
// MaxRequests counts from the start of the engine and is never given back.
//
// # All or nothing
//
// Take counts a request against all of its limits, or, if one refuses, against
// none.
//
// # Memory
//
// A counter is kept for each pair of principal and scope, Config.MaxCounters in
// all. A bucket that is full again says nothing and is forgotten when room is
// needed. A count of requests is never forgotten; when nothing can be, a new
// pair is refused. Reloading a policy keeps the counters of the rules that keep
// their names.
package quota

import (
	"errors"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// The reasons of a refusal, as the aegrail project names them.
const (
	ReasonRateLimited          = "rate_limited"
	ReasonRequestCountExceeded = "request_count_exceeded"
)

const (
	defaultCounters = 1 << 16 // about 10 MiB
	sweepEvery      = time.Second
)

// Config is what a Quota needs.
type Config struct {
	Now         func() time.Time // must be set
	MaxCounters int              // pairs of principal and scope; 0 is 65536
}

// Quota counts requests. It may be used from many goroutines.
type Quota struct {
	now func() time.Time
	max int

	mu       sync.Mutex
	counters map[key]*counter
	swept    time.Time
}

// key is a principal and a scope. The principal's ID would be one string fewer
// and an allocation more.
type key struct{ namespace, account, agent, scope string }

// counter is one pair's use.
type counter struct {
	full     time.Time // when the bucket is full again (the GCRA's theoretical arrival time)
	requests int64
}

// New returns a Quota without counts.
func New(c Config) (*Quota, error) {
	if c.Now == nil {
		return nil, errors.New("quota needs a clock: set Config.Now")
	}
	if c.MaxCounters <= 0 {
		c.MaxCounters = defaultCounters
	}
	return &Quota{now: c.Now, max: c.MaxCounters, counters: map[key]*counter{}}, nil
}

// Take counts one request of p against limits. If it is refused, ok is false,
// reason says by what, and retryAfter when it is worth asking again, 0 for
// never. Without limits it does nothing; with them it allocates only for a pair
// it has not seen. A nil Quota refuses every limit.
func (q *Quota) Take(p identity.Principal, limits []policy.Limit) (reason string, retryAfter time.Duration, ok bool) {
	if len(limits) == 0 {
		return "", 0, true
	}
	if q == nil {
		return ReasonRateLimited, 0, false
	}
	now := q.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	k := key{namespace: p.Namespace, account: p.ServiceAccount, agent: p.AgentIdentity}
	for i := range limits {
		k.scope = limits[i].Scope
		c := q.counters[k]
		if c == nil {
			if c = q.add(k, now); c == nil {
				return ReasonRateLimited, sweepEvery, false
			}
		}
		if reason, retryAfter, ok = c.room(&limits[i], now); !ok {
			return reason, retryAfter, false
		}
	}
	for i := range limits {
		k.scope = limits[i].Scope
		c := q.counters[k]
		if c == nil { // swept to make room for a later limit's
			c = &counter{}
			q.counters[k] = c
		}
		c.take(&limits[i], now)
	}
	return "", 0, true
}

// room says whether one more request fits.
func (c *counter) room(l *policy.Limit, now time.Time) (reason string, retryAfter time.Duration, ok bool) {
	if l.MaxRequests > 0 && c.requests >= l.MaxRequests {
		return ReasonRequestCountExceeded, 0, false
	}
	if l.Rate > 0 {
		// The bucket holds Per worth of tokens; what is missing from it is
		// the time until it is full.
		missing := c.missing(l, now)
		if over := missing + step(l) - l.Per; over > 0 {
			return ReasonRateLimited, over, false
		}
	}
	return "", 0, true
}

// step is the time in which one token comes back.
func step(l *policy.Limit) time.Duration { return max(l.Per/time.Duration(l.Rate), 1) }

func (c *counter) take(l *policy.Limit, now time.Time) {
	if l.MaxRequests > 0 {
		c.requests++
	}
	if l.Rate > 0 {
		c.full = now.Add(c.missing(l, now) + step(l))
	}
}

// missing is how long the bucket takes to fill. A limit that got narrower, or a
// clock that went back, makes it at most one bucket.
func (c *counter) missing(l *policy.Limit, now time.Time) time.Duration {
	return min(max(c.full.Sub(now), 0), l.Per)
}

// add makes a counter, making room for it if there is none.
func (q *Quota) add(k key, now time.Time) *counter {
	if len(q.counters) >= q.max {
		q.sweep(now)
		if len(q.counters) >= q.max {
			return nil
		}
	}
	c := &counter{}
	q.counters[k] = c
	return c
}

// sweep forgets what says nothing, at most once a second: it goes through all
// counters, and a flood must not make that happen for each request.
func (q *Quota) sweep(now time.Time) {
	if since := now.Sub(q.swept); since >= 0 && since < sweepEvery {
		return
	}
	q.swept = now
	for k, c := range q.counters {
		if c.requests == 0 && !c.full.After(now) {
			delete(q.counters, k)
		}
	}
}

// Len returns the number of counters.
func (q *Quota) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.counters)
}
