package proxy

import "sync"

// budget bounds what is held in memory for many at once, in bytes: one has each at
// most, all have most together, and who has as much as is left gets no more, so
// that there is room for who comes next.
type budget[K comparable] struct {
	each, most int64

	mu   sync.Mutex
	all  int64       // guarded by mu
	held map[K]int64 // :: who → its bytes, while it has any; guarded by mu
}

// newBudget makes a budget of which nothing is taken.
func newBudget[K comparable](each, most int64) *budget[K] {
	return &budget[K]{each: each, most: most, held: make(map[K]int64)}
}

func (b *budget[K]) take(who K, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[who]+n > min(b.each, b.most-b.all) {
		return false
	}
	b.held[who] += n
	b.all += n
	return true
}

func (b *budget[K]) give(who K, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all -= n
	if b.held[who] -= n; b.held[who] <= 0 {
		delete(b.held, who)
	}
}

// room is a budget as one of many has it: an http1.Allowance.
type room[K comparable] struct {
	of  *budget[K]
	who K
}

// Take implements http1.Allowance.
func (r *room[K]) Take(n int) bool { return r.of.take(r.who, int64(n)) }

// Give implements http1.Allowance.
func (r *room[K]) Give(n int) {
	if n > 0 {
		r.of.give(r.who, int64(n))
	}
}
