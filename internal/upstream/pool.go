package upstream

import (
	"slices"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
)

// poolKey is what a connection was opened for. It is never used for anything
// else: one principal's connection is not another's, and one dialled under a
// rule's addresses, roots and pins is not one without them (row D8). The
// protocol is kept beside it, in host.
type poolKey struct {
	principal string
	scheme    canon.Scheme
	host      string
	port      uint16
	egress    string
}

type protocol uint8

const (
	unknownProtocol protocol = iota
	http11
	http2
)

// host is what the pool knows of one key. Guarded by pool.mu.
type host struct {
	key    poolKey
	idle   []*conn   // HTTP/1.1, the one used last at the end
	h2     []*h2conn // shared by streams
	proto  protocol  // what ALPN yielded last
	flight *flight   // a dial that others wait for
	dials  int       // under way
	used   time.Time // taken last
	// retired: a reload took the permission away. What is in use ends with its
	// exchange.
	retired bool
	swept   bool // forgotten, with nothing idle; another host may have its key by now
}

// flight is one dial where the protocol, and so whether more than one
// connection is needed, is not known yet.
type flight struct {
	done chan struct{}
	err  error // set before done is closed; nil also if the caller gave up: then try again
}

// clock reads the monotonic clock alone, which takes half as long as time.Now:
// for times that are only compared with each other.
type clock struct{ epoch time.Time }

func (k clock) now() time.Time { return k.epoch.Add(time.Since(k.epoch)) }

// pool holds connections. One timer looks after all of them.
type pool struct {
	maxPerHost, maxIdle, maxHTTP2 int
	idleTimeout                   time.Duration
	clock

	mu     sync.Mutex
	hosts  map[poolKey]*host
	live   map[*conn]struct{}   // every HTTP/1.1 connection, idle or not
	live2  map[*h2conn]struct{} // every HTTP/2 connection
	idle   int
	holds  map[string]int // :: principal → its part of idle
	holds2 map[string]int // :: principal → its part of live2
	timer  *time.Timer    // nil while there is nothing to look after
	closed bool
}

func newPool(c Config) *pool {
	return &pool{
		maxPerHost: c.MaxIdlePerHost, maxIdle: c.MaxIdle, maxHTTP2: c.MaxHTTP2, idleTimeout: c.IdleTimeout, clock: clock{time.Now()},
		hosts: map[poolKey]*host{}, holds: map[string]int{}, holds2: map[string]int{},
		live: map[*conn]struct{}{}, live2: map[*h2conn]struct{}{},
	}
}

// taken is what take found: exactly one of a connection to try, a dial to wait
// for, or neither: then the caller dials for host and reports to opened.
type taken struct {
	h1     *conn
	h2     *h2conn
	wait   *flight
	host   *host
	flight *flight // the caller's dial is one that others wait for
}

// take finds a connection. An HTTP/2 one is preferred; of HTTP/1.1 the one used
// last, as its peer is the least likely to have closed it.
func (p *pool) take(key poolKey, h1only bool) (taken, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return taken{}, fail(ReasonClosed, 503, "the engine is shutting down", nil)
	}
	h := p.hosts[key]
	if h == nil {
		h = &host{key: key}
		p.hosts[key] = h
	}
	now := p.now()
	h.used = now
	if !h1only {
		for _, c := range h.h2 {
			if c.cc.Available() > 0 {
				return taken{h2: c}, nil
			}
		}
	}
	if n := len(h.idle); n > 0 && now.Sub(h.idle[n-1].since) < p.idleTimeout {
		c := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		p.count(key.principal, -1)
		return taken{h1: c}, nil
	}
	if h1only || h.proto == http11 {
		h.dials++
		return taken{host: h}, nil
	}
	if h.flight != nil {
		return taken{wait: h.flight}, nil
	}
	h.flight = &flight{done: make(chan struct{})}
	h.dials++
	return taken{host: h, flight: h.flight}, nil
}

// opened reports what became of a dial. gaveUp: the caller's own context
// ended, which says nothing about the host. The caller retires out, which is not nil
// if h2 took its place.
func (p *pool) opened(h *host, f *flight, h1 *conn, h2 *h2conn, err error, gaveUp bool) (out *h2conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.dials--
	h.used = p.now()
	switch {
	case h1 != nil:
		h1.host = h
		p.live[h1] = struct{}{}
		if p.closed {
			h1.cut()
		}
		if f != nil {
			h.proto = http11
		}
	case h2 != nil:
		h2.host = h
		h.proto = http2
		if h2.cc.Err() != nil { // dead already: drop has been here, or will not come
			break
		}
		p.live2[h2] = struct{}{}
		p.holds2[h.key.principal]++
		if h.retired || p.closed {
			h2.retired.Store(true)
		} else {
			h.h2 = append(h.h2, h2)
		}
		if len(p.live2) > p.maxHTTP2 {
			out = p.spare(h2)
		}
	}
	if f != nil {
		if err != nil && !gaveUp {
			f.err = err
		}
		h.flight = nil
		close(f.done)
	}
	p.watch()
	return out
}

// spare takes an HTTP/2 connection that carries nothing out of the pool, of whoever
// has the most of those that have such a one; all may carry something, and then there
// is one too many. A principal has no more in use than it has requests. Called with mu
// held.
func (p *pool) spare(but *h2conn) (out *h2conn) {
	most := 0
	for c := range p.live2 {
		if n := p.holds2[c.host.key.principal]; n > most && c != but && !c.retired.Load() && c.cc.InFlight() == 0 {
			most, out = n, c
		}
	}
	out.leave()
	return out
}

// wide reports whether the next HTTP/2 connection of principal may hold much. If it is
// to be one too many, out is one that holds much and carries nothing, which the caller
// retires: who visits many hosts is not to do with narrow windows for it.
func (p *pool) wide(principal string) (ok bool, out *h2conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds2[principal] < wideConnections {
		return true, nil
	}
	n := 0
	for c := range p.live2 {
		if !c.wide || c.host.key.principal != principal {
			continue
		}
		if n++; !c.retired.Load() && c.cc.InFlight() == 0 {
			out = c
		}
	}
	if n < wideConnections {
		return true, nil
	}
	out.leave()
	return out != nil, out
}

// leave has nobody take h any more, which may be nil. Called with pool.mu held.
func (h *h2conn) leave() {
	if h != nil {
		h.retired.Store(true)
		h.host.h2 = slices.DeleteFunc(h.host.h2, func(o *h2conn) bool { return o == h })
	}
}

// count keeps the numbers of idle connections. Called with mu held.
func (p *pool) count(principal string, n int) {
	p.idle += n
	if p.holds[principal] += n; p.holds[principal] == 0 {
		delete(p.holds, principal)
	}
}

// put takes c back after an exchange that ended exactly. It reports false if c
// is not wanted. The caller closes that, and out, which is not nil if c took the
// place of another principal's.
func (p *pool) put(c *conn) (kept bool, out *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := c.host
	if p.closed || h.retired || len(h.idle) >= p.maxPerHost {
		return false, nil
	}
	if p.idle >= p.maxIdle {
		if out = p.room(h.key.principal); out == nil {
			return false, nil
		}
	}
	c.since = p.now()
	h.used = c.since
	if h.swept {
		if now := p.hosts[h.key]; now != nil {
			h, c.host = now, now
		} else {
			p.hosts[h.key], h.swept = h, false
		}
	}
	h.idle = append(h.idle, c)
	p.count(h.key.principal, 1)
	p.watch()
	return true, out
}

// room takes an idle connection of whoever holds the most out of the pool, if that
// is more than principal would hold then: who fills the pool has itself to do with
// fewer, and nobody else. Called with mu held.
func (p *pool) room(principal string) *conn {
	most, holds := principal, p.holds[principal]+1
	for who, n := range p.holds {
		if n > holds {
			most, holds = who, n
		}
	}
	if most == principal {
		return nil
	}
	for _, h := range p.hosts {
		if h.key.principal == most && len(h.idle) > 0 {
			c := h.idle[0]
			h.idle = slices.Delete(h.idle, 0, 1)
			p.count(most, -1)
			return c
		}
	}
	return nil
}

// forget is called by a connection that closes.
func (p *pool) forget(c *conn) {
	p.mu.Lock()
	delete(p.live, c)
	p.mu.Unlock()
}

// drop takes an HTTP/2 connection that is of no more use out of the pool.
func (p *pool) drop(c *h2conn) {
	if c.cc.Err() == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, in := p.live2[c]; in {
		delete(p.live2, c)
		who := c.host.key.principal
		if p.holds2[who]--; p.holds2[who] == 0 {
			delete(p.holds2, who)
		}
	}
	if c.host == nil { // not reported to opened yet
		return
	}
	for i, o := range c.host.h2 {
		if o == c {
			c.host.h2 = append(c.host.h2[:i], c.host.h2[i+1:]...)
			return
		}
	}
}

// watch arms the janitor if it is not. Called with mu held.
func (p *pool) watch() {
	if p.timer == nil && !p.closed {
		p.timer = time.AfterFunc(p.idleTimeout/2, p.sweep)
	}
}

// sweep closes what has been idle for too long and forgets hosts that nothing
// is left of, so that neither sockets nor memory outlive the traffic.
func (p *pool) sweep() {
	p.mu.Lock()
	now := p.now()
	var old []*conn
	for key, h := range p.hosts {
		n := 0
		for n < len(h.idle) && now.Sub(h.idle[n].since) >= p.idleTimeout {
			n++
		}
		old = append(old, h.idle[:n]...)
		h.idle = append(h.idle[:0], h.idle[n:]...)
		p.count(key.principal, -n)
		if len(h.idle)+len(h.h2)+h.dials == 0 && now.Sub(h.used) >= p.idleTimeout {
			delete(p.hosts, key)
			h.swept = true
		}
	}
	p.timer = nil
	if len(p.hosts) > 0 {
		p.watch()
	}
	p.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// retire closes what keep does not want: idle connections now, those in use
// when they are done.
func (p *pool) retire(keep func(principal, host string, port uint16, egressKey string) bool) {
	p.mu.Lock()
	var idle []*conn
	var shared []*h2conn
	for key, h := range p.hosts {
		if keep(key.principal, key.host, key.port, key.egress) {
			continue
		}
		h.retired = true
		delete(p.hosts, key)
		p.count(key.principal, -len(h.idle))
		idle = append(idle, h.idle...)
		shared = append(shared, h.h2...)
		h.idle, h.h2 = nil, nil
	}
	// A host that the sweep forgot may still have connections in use.
	for c := range p.live {
		if k := c.host.key; !c.host.retired && !keep(k.principal, k.host, k.port, k.egress) {
			c.host.retired = true
		}
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	for _, c := range shared {
		c.retire()
	}
}

// close closes every connection, idle or not.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	for _, h := range p.hosts {
		h.idle, h.h2 = nil, nil
	}
	p.hosts, p.idle, p.holds = map[poolKey]*host{}, 0, map[string]int{}
	p.holds2 = map[string]int{}
	live, live2 := p.live, p.live2
	p.live, p.live2 = map[*conn]struct{}{}, map[*h2conn]struct{}{}
	p.mu.Unlock()
	for c := range live {
		c.cut()
	}
	for c := range live2 {
		_ = c.cc.Close()
	}
}
