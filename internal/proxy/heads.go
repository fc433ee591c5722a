package proxy

// largeHeads is a connection as its reader's http1.Allowance.
type largeHeads conn

func (h *largeHeads) Take(n int) bool { return h.s.heads.take(h.flow.Client.Addr(), int64(n)) }
func (h *largeHeads) Give(n int)      { h.s.heads.give(h.flow.Client.Addr(), int64(n)) }
