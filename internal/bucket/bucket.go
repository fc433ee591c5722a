// Package bucket bounds how often each of many callers may do something: a token
// bucket for each of them, which is full at first. Who calls is not known to be
// anybody yet, so what is kept is bounded: a bucket that is full again says nothing
// and is forgotten when room is needed, and callers beyond the bound share one. What
// was kept of them is looked through once a second at most, so that a flood does not
// make each of its calls cost a look at all others.
//
// Times are the caller's. A clock that goes back brings nothing and takes nothing.
package bucket

import (
	"sync"
	"time"
)

// sweepEvery is how often full buckets are looked for.
const sweepEvery = time.Second

// Rate is what a caller may do: Burst times at once, then PerSecond.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Buckets are the callers' buckets. They are safe for concurrent use. The zero
// value lets nobody do anything.
type Buckets[K comparable] struct {
	rate Rate
	most int

	mu    sync.Mutex
	of    map[K]*bucket // guarded by mu, as is all below
	rest  bucket        // of all beyond most
	swept time.Time
}

type bucket struct {
	used    float64   // tokens that are missing
	at      time.Time // when used was right
	refused bool      // its last call
}

// New returns full buckets, at most most of which are told apart.
func New[K comparable](r Rate, most int) *Buckets[K] {
	return &Buckets[K]{rate: r, most: most, of: make(map[K]*bucket)}
}

// Take takes a token of key's and reports whether there was one, and if not,
// whether that is news: a flood is worth one line and not one for each of its calls.
func (b *Buckets[K]) Take(key K, now time.Time) (ok, news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.find(key, now)
	b.refill(one, now)
	if one.used+1 > float64(b.rate.Burst) {
		news = !one.refused
		one.refused = true
		return false, news
	}
	one.used++
	one.refused = false
	return true, false
}

// Fine takes n more from key, for what turned out to be worth nothing. It can owe as
// much as its burst.
func (b *Buckets[K]) Fine(key K, n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.of[key]
	if one == nil {
		one = &b.rest
	}
	one.used = min(2*float64(b.rate.Burst), one.used+n)
}

// Len is how many buckets are kept, without the shared one.
func (b *Buckets[K]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.of)
}

func (b *Buckets[K]) find(key K, now time.Time) *bucket {
	if one := b.of[key]; one != nil {
		return one
	}
	if len(b.of) >= b.most {
		b.sweep(now)
	}
	if len(b.of) >= b.most {
		return &b.rest
	}
	one := &bucket{at: now}
	b.of[key] = one
	return one
}

func (b *Buckets[K]) sweep(now time.Time) {
	if passed := now.Sub(b.swept); 0 <= passed && passed < sweepEvery {
		return
	}
	b.swept = now
	for key, one := range b.of {
		if b.refill(one, now); one.used == 0 {
			delete(b.of, key)
		}
	}
}

// refill adds what time has brought.
func (b *Buckets[K]) refill(one *bucket, now time.Time) {
	if passed := now.Sub(one.at).Seconds(); passed > 0 {
		one.used = max(0, one.used-passed*b.rate.PerSecond)
	}
	one.at = now
}
