package upstream

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// corkSize is how much is gathered before it is written: four full TLS records
// and their overhead.
const corkSize = 66 << 10

// wire is the transport beneath TLS (or beneath HTTP, for plain). It gathers
// several TLS records into one write, counts what the kernel took, and answers
// whether the peer has sent something that nobody asked for.
type wire struct {
	net.Conn
	raw syscall.RawConn // the TCP socket

	sawEOF  bool // the peer's FIN was read; owned by the reading goroutine
	probing bool // Read answers with what was read from the socket, else probeError; owned by the reading goroutine
	under   *proxyWire
	greeted int // bytes of a handshake that were read; -1: there is none under way. Owned by the reading goroutine

	mu      sync.Mutex
	written int64 // bytes that the kernel accepted
	corked  bool
	buf     []byte

	poll  [1]unix.PollFd // quiet's, here so that it does not escape
	ready bool
	pollf func(fd uintptr)
}

// proxyWire is what is below the TLS to an upstream proxy, which may hold bytes
// that the socket does not have any more.
type proxyWire struct {
	net.Conn
	probing bool // as in wire
}

// NetConn returns the connection below.
func (p *proxyWire) NetConn() net.Conn { return p.Conn }

// Read implements net.Conn.
func (p *proxyWire) Read(b []byte) (int, error) {
	if p.probing {
		return 0, probeError{}
	}
	return p.Conn.Read(b)
}

// probeError answers a Read while probing. It is a temporary net.Error, since
// crypto/tls keeps every other error for good.
type probeError struct{}

func (probeError) Error() string   { return "nothing buffered" }
func (probeError) Timeout() bool   { return true }
func (probeError) Temporary() bool { return true }

func newWire(conn net.Conn) (*wire, error) {
	w := &wire{Conn: conn, greeted: -1}
	inner := conn
	for {
		n, ok := inner.(interface{ NetConn() net.Conn }) // TLS to an upstream proxy
		if !ok {
			break
		}
		inner = n.NetConn()
		if p, ok := inner.(*proxyWire); ok {
			w.under = p
		}
	}
	raw, err := inner.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	w.raw = raw
	w.pollf = w.pollFD
	return w, nil
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.probing {
		if w.under == nil {
			return 0, probeError{}
		}
		w.under.probing = true
		defer func() { w.under.probing = false }()
		return w.Conn.Read(p)
	}
	n, err := w.Conn.Read(p)
	if err != nil && n == 0 {
		w.sawEOF = true
	}
	if w.greeted >= 0 {
		if w.greeted += n; w.greeted > maxGreeting {
			return 0, fail(ReasonCertTooLarge, http.StatusBadGateway, fmt.Sprintf("a handshake of more than %d bytes", maxGreeting), nil)
		}
	}
	return n, err
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.write(p)
	}
	if len(w.buf)+len(p) > cap(w.buf) {
		if err := w.flush(); err != nil {
			return 0, err
		}
		if len(p) > cap(w.buf) {
			return w.write(p)
		}
	}
	w.buf = append(w.buf, p...)
	return len(p), nil
}

func (w *wire) write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.written += int64(n)
	return n, err
}

func (w *wire) flush() error {
	_, err := w.write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// cork gathers writes in buf until uncork, which writes them.
func (w *wire) cork(buf []byte) {
	w.mu.Lock()
	w.corked, w.buf = true, buf[:0]
	w.mu.Unlock()
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	w.corked, w.buf = false, nil
	return err
}

// sent returns how many bytes the kernel took so far.
func (w *wire) sent() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written
}

// quiet reports that nothing can be read from the socket: no byte, no FIN, no
// error. It does not block and does not allocate.
func (w *wire) quiet() bool {
	w.ready = true
	if err := w.raw.Control(w.pollf); err != nil {
		return false
	}
	return !w.ready
}

func (w *wire) pollFD(fd uintptr) {
	w.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI}
	n, err := unix.Poll(w.poll[:], 0)
	for err == unix.EINTR {
		n, err = unix.Poll(w.poll[:], 0)
	}
	w.ready = err != nil || n != 0
}
