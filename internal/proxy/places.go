package proxy

import "net/netip"

// How many connections there may be, and whose. The rules are:
//
//   - nobody has all: an address and a principal have a quarter each at most, and
//     connections that have not said whose they are have half of all together;
//   - who has as many as are left gets no more (of those that have not said, an
//     address; of those that have, a principal). So however many take what they
//     can, there is room for who comes next, and alone one has all that it may.
//
// A connection has said whose it is when identify knew it, once; it counts for a
// principal from then on, in its tally.

// places are the connections there are. Server.mu guards them.
type places struct {
	conns    map[*conn]struct{}
	byClient map[netip.Addr]share
	unknown  int // connections that have not said whose they are
}

// share is what one address has.
type share struct{ all, unknown int }

// enter gives c a place, if there is one for it.
func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	client := c.flow.Client.Addr()
	own := s.byClient[client]
	left := min(s.limits.Connections-len(s.conns), s.limits.ConnectionsUnknown-s.unknown)
	if s.draining.Load() || own.all >= s.limits.ConnectionsPerClient || own.unknown >= left {
		return false
	}
	s.conns[c] = struct{}{}
	own.all++
	own.unknown++
	s.byClient[client] = own
	s.unknown++
	s.wg.Add(1)
	return true
}

// known counts c no longer among those that have not said whose they are, and
// returns how many connections its principal may have.
func (s *Server) known(c *conn) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, in := s.conns[c]; in && !c.known {
		c.known = true
		s.unknown--
		client := c.flow.Client.Addr()
		own := s.byClient[client]
		own.unknown--
		s.byClient[client] = own
	}
	return min(s.limits.ConnectionsPerPrincipal, s.limits.Connections-len(s.conns)+1)
}

// remove takes c's place back.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	client := c.flow.Client.Addr()
	own := s.byClient[client]
	own.all--
	if !c.known {
		own.unknown--
		s.unknown--
	}
	if s.byClient[client] = own; own.all <= 0 {
		delete(s.byClient, client)
	}
	delete(s.conns, c)
}
