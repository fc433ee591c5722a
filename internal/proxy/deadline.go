package proxy

import (
	"net"
	"time"
)

// How the deadlines of an HTTP/1 client are kept. The rules are:
//
//   - every read and every write of the socket has one;
//   - what may take a while each time (an idle connection, a client that does not
//     read) gets that and at most half as much again, so that the deadline is moved
//     once in many requests and not in each;
//   - what is a limit of the whole (a head, a judged body) is set exactly, and a
//     head's only when more of it has to be read than came with its first byte.
//
// deadlines is owned by the goroutine that serves the connection, or by the one
// that uploads a body while that waits for it.
type deadlines struct {
	tcp             net.Conn
	readBy, writeBy time.Time // as they are set, or before that
}

// allowRead gives the next read d from now.
func (l *deadlines) allowRead(now time.Time, d time.Duration) {
	if left := l.readBy.Sub(now); left < d || left > 2*d {
		l.readUntil(now.Add(d + d/2))
	}
}

// readUntil sets the deadline of reads.
func (l *deadlines) readUntil(at time.Time) {
	l.readBy = at
	_ = l.tcp.SetReadDeadline(at)
}

// allowWrite gives the next write d from now.
func (l *deadlines) allowWrite(now time.Time, d time.Duration) {
	if left := l.writeBy.Sub(now); left < d || left > 2*d {
		l.writeBy = now.Add(d + d/2)
		_ = l.tcp.SetWriteDeadline(l.writeBy)
	}
}

// noDeadlines takes what is set away.
func (l *deadlines) noDeadlines() {
	l.readBy, l.writeBy = noDeadline, noDeadline
	_ = l.tcp.SetDeadline(noDeadline)
}

// stopRead makes a read in another goroutine return.
func (l *deadlines) stopRead() { _ = l.tcp.SetReadDeadline(time.Unix(1, 0)) }

// lull ends a connection between two requests, unless the next one comes soon: its
// answer says that it was the last. To close it at once would take a request away
// that is on its way, and a client does not send a POST again.
func (c *conn) lull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.one == nil && len(c.streams) == 0 && !c.handedOver.Load() {
		_ = c.tcp.SetReadDeadline(c.s.now().Add(c.s.limits.Lull))
	}
}

// lastWait is lull for the goroutine that is about to wait for a request. It reports
// whether the engine stops.
func (c *conn) lastWait() bool {
	stops := c.s.draining.Load()
	if stops {
		c.readUntil(c.s.now().Add(c.s.limits.Lull))
	}
	return stops
}
