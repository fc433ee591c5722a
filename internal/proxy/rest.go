package proxy

import (
	"errors"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// The stack of a goroutine has grown to what a handshake or a request took, and
// does not shrink while it waits. So a connection that nothing has come from for
// Limits.Settle goes on in a new goroutine, which does no more than wait. It is
// most of what an idle connection costs beside its keys; who thinks for longer
// between two requests pays some microseconds for it.

// rest waits for the next request of a connection that has settled.
func (c *conn) rest() {
	c.resting = false
	c.s.tidier.settled(c.s)
	if c.idleBy.IsZero() { // a piece of a TLS record is no request and moves nothing
		c.idleBy = c.at.Add(c.s.limits.Idle)
	}
	c.readUntil(c.idleBy)
	c.lastWait()
	if c.awaitReadable() != nil {
		c.endHTTP1()
		return
	}
	c.at = c.s.now()
	c.goOn()
}

// awaitReadable waits until a read of the socket would not, also because it has
// ended. It reads nothing.
func (c *conn) awaitReadable() error {
	sc, ok := rawOf(c.tcp).(syscall.Conn)
	if !ok {
		return nil // the read that follows waits
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(readable)
}

func readable(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return !errors.Is(err, syscall.EAGAIN)
}

// tidier gives memory back when a burst of connections has come to rest. Go
// collects when the heap grows; then nothing does, and what the handshakes left
// would stay for two minutes.
type tidier struct {
	rested   atomic.Uint64 // connections, since the last look at them all
	requests uint64        // the number of the latest, when last looked at; owned by look
}

const (
	tidyAfter = 500 * time.Millisecond
	tidyFor   = 64 // connections that have settled: for fewer it is not worth it
)

// settled counts a connection that has come to rest.
func (t *tidier) settled(s *Server) {
	if t.rested.Add(1) == 1 {
		time.AfterFunc(tidyAfter, func() { t.look(s) })
	}
}

// look tidies if it is quiet, and comes back if it is not. Only one is on its way.
func (t *tidier) look(s *Server) {
	rested, ok := t.take(s.ids.Load())
	switch {
	case !ok:
		time.AfterFunc(tidyAfter, func() { t.look(s) })
	case rested >= tidyFor:
		debug.FreeOSMemory()
	}
}

// take returns how many have come to rest, once it is quiet. latest is the number
// of the latest request.
func (t *tidier) take(latest uint64) (rested uint64, ok bool) {
	requests := latest - t.requests
	t.requests = latest
	rested = t.rested.Load()
	if ok = quiet(rested, requests); ok {
		t.rested.Store(0)
	}
	return rested, ok
}

// quiet reports that few requests came beside the connections that settled.
func quiet(rested, requests uint64) bool { return requests <= rested/8 }
