package link

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate is a listener that holds a bounded number of connections, in all and of
// one address. One that is too many is closed unread, and one on which nobody was
// known for a while is closed.
type gate struct {
	net.Listener
	total, each int
	unknown     time.Duration
	full        func(addr netip.Addr) // told of the first that is turned away, after one that was not

	mu     sync.Mutex
	open   int
	by     map[netip.Addr]int // guarded by mu
	turned bool               // the last one was; guarded by mu

	strangers map[string]*time.Timer // :: remote address and port → when it is closed; guarded by mu
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := addrOf(nc.RemoteAddr())
		ok, news := g.enter(addr)
		if ok {
			g.admit(nc)
			return &gated{Conn: nc, leave: sync.OnceFunc(func() {
				g.vouch(nc.RemoteAddr())
				g.left(addr)
			})}, nil
		}
		nc.Close()
		if news {
			g.full(addr)
		}
	}
}

func (g *gate) enter(addr netip.Addr) (ok, news bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= g.total || g.by[addr] >= g.each {
		news = !g.turned
		g.turned = true
		return false, news
	}
	g.open++
	g.by[addr]++
	g.turned = false
	return true, false
}

// admit has nc closed unless it is vouched for in time.
func (g *gate) admit(nc net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strangers[nc.RemoteAddr().String()] = time.AfterFunc(g.unknown, func() { nc.Close() })
}

// vouch says that somebody is known on the connection from that address, or that it ended.
func (g *gate) vouch(remote net.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if timer := g.strangers[remote.String()]; timer != nil {
		timer.Stop()
		delete(g.strangers, remote.String())
	}
}

func (g *gate) left(addr netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.by[addr]--; g.by[addr] <= 0 {
		delete(g.by, addr)
	}
}

// gated is a connection that the gate counts until it is closed.
type gated struct {
	net.Conn
	leave func()
}

func (c *gated) Close() error {
	c.leave()
	return c.Conn.Close()
}

// addrOf is the address without its port, the zero Addr where there is none.
func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
