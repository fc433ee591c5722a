package proxy

import (
	"net"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// A client over HTTP/1 that leaves while its request is under way would be
// noticed when its answer is written. An origin may think for minutes, and goes
// on for nobody. So exchanges that last are looked at: one goroutine asks the
// kernel, for each of them, whether the peer is still there. It reads nothing,
// so there is no read to hand over and no pipelined byte to lose, and a request
// that is answered within Limits.ClientLook costs nothing.
//
// Over TLS the end of TCP is the end of the client. One that only ends what it
// sends says so by a close_notify, and is still answered. Without TLS a FIN may
// mean either, so only a reset counts. HTTP/2 notices by itself, but not a client
// that is there and gives a stream no window, which is looked for too. In a tunnel and
// a WebSocket both directions are read.

// watchClients looks after those that have left, until the Server has shut down.
func (s *Server) watchClients() {
	tick := time.NewTicker(s.limits.ClientLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			before := s.now().Add(-s.limits.ClientLook)
			for _, c := range s.snapshot() {
				c.look(before)
			}
		case <-s.over:
			return
		}
	}
}

// look ends what is under way since before on an HTTP/1 connection whose client
// has left.
func (c *conn) look(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.streams {
		if cl, ok := x.client.(*h2client); ok {
			cl.stall(x, c.s.now())
		}
	}
	x := c.one
	if x == nil || x.start.After(before) || x.req.Upgrade != canon.NoUpgrade || x.req.Scheme == canon.Tunnel {
		return
	}
	raw := rawOf(c.tcp)
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return
	}
	secure := c.tlsVersion != "" || raw != c.tcp // in the tunnel, or below it (--listen-tls)
	if finished, broken := intake.Left(tcp); broken || finished && secure {
		x.cancel() // and no cut: what upstream then says is that the client is gone
	}
}
