package proxy

import (
	"net/netip"
	"sync"
)

// headBudget bounds what heads hold that are larger than a small page, from their
// fifth KiB until their request has ended: a thousand of them, unfinished, would be
// 64 MiB. An address that has as much as is left gets no more.
type headBudget struct {
	mu    sync.Mutex
	limit int64
	all   int64
	held  map[netip.Addr]int64 // :: address → its bytes, while it has any
}

func (b *headBudget) take(client netip.Addr, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[client]+n > b.limit-b.all {
		return false
	}
	b.held[client] += n
	b.all += n
	return true
}

func (b *headBudget) give(client netip.Addr, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all -= n
	if b.held[client] -= n; b.held[client] <= 0 {
		delete(b.held, client)
	}
}

// largeHeads is a connection as its reader's http1.Allowance.
type largeHeads conn

func (h *largeHeads) Take(n int) bool { return h.s.heads.take(h.flow.Client.Addr(), int64(n)) }
func (h *largeHeads) Give(n int)      { h.s.heads.give(h.flow.Client.Addr(), int64(n)) }
