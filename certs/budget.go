package certs

import (
	"sync"
	"time"
)

// budgets are the principals' token buckets for mints: one's flood of new names is refused to that one alone. A bucket that is
// full says nothing, so it need not be kept.
type budgets struct {
	rate, burst float64 // tokens a second; capacity

	mu    sync.Mutex
	of    map[string]*bucket // :: principal → its bucket, bounded by maxPrincipals
	rest  bucket             // of all others
	swept time.Time          // when full buckets were last looked for
}

// take takes a token of principal's, if there is one.
func (b *budgets) take(principal string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.find(principal, now)
	p.refill(b.rate, now)
	if p.used+1 > b.burst {
		return false
	}
	p.used++
	return true
}

func (b *budgets) find(principal string, now time.Time) *bucket {
	if p := b.of[principal]; p != nil {
		return p
	}
	if len(b.of) >= maxPrincipals {
		b.sweep(now)
	}
	if len(b.of) >= maxPrincipals {
		return &b.rest
	}
	if b.of == nil {
		b.of = make(map[string]*bucket)
	}
	p := &bucket{last: now}
	b.of[principal] = p
	return p
}

// sweep forgets the full buckets, at most once a second.
func (b *budgets) sweep(now time.Time) {
	if passed := now.Sub(b.swept); 0 <= passed && passed < time.Second {
		return
	}
	b.swept = now
	for principal, p := range b.of {
		if p.refill(b.rate, now); p.used == 0 {
			delete(b.of, principal)
		}
	}
}

// bucket is a token bucket that begins full.
type bucket struct {
	used float64   // tokens missing
	last time.Time // when used was right
}

// refill adds what time has brought. A clock that went back brings nothing.
func (b *bucket) refill(rate float64, now time.Time) {
	if passed := now.Sub(b.last).Seconds(); passed > 0 {
		b.used = max(0, b.used-passed*rate)
	}
	b.last = now
}
