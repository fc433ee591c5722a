package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// recordHandshake is the ContentType that every TLS connection begins with
// (RFC 8446 section 5.1).
const recordHandshake = 22

// errNotTLS is a tunnel whose first byte does not begin a TLS handshake.
var errNotTLS = errors.New("the tunnel does not begin with a TLS handshake")

// wire is a client's TCP connection (or the TLS of ServeTLS) as the TLS layer
// above sees it: bytes that were read ahead come first, the first byte is checked
// before crypto/tls may answer it, and several records can leave in one write.
type wire struct {
	net.Conn
	owner *conn
	early []byte
	sniff bool // the next Read is the first of what should be a handshake
	shake bool // a handshake is under way: its bytes are counted, and end is kept
	end   [alertRecord]byte
	// headBy is until when a head must be whole. A Read that has to wait for more
	// of it sets that deadline and forgets it here.
	headBy time.Time

	mu   sync.Mutex // orders a held write with a KeyUpdate answered by Read
	held *[]byte    // what is kept back; nil but between cork and uncork
}

// socket is the wire next to the client's TCP connection: c's own, or the one
// below the TLS that the engine's port itself speaks.
func (c *conn) socket() *wire {
	if tc, ok := c.tcp.(*tls.Conn); ok {
		if w, ok := tc.NetConn().(*wire); ok {
			return w
		}
	}
	return &c.wire
}

// corks holds the buffers of corked writes: 64 KiB of a body and its records.
var corks = sync.Pool{New: func() any { b := make([]byte, 0, 72<<10); return &b }}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.early) > 0 {
		if w.sniff && w.early[0] != recordHandshake {
			return 0, errNotTLS
		}
		w.sniff = false
		n := copy(p, w.early)
		w.keepEnd(p[:n])
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
		return n, nil
	}
	if !w.headBy.IsZero() {
		w.owner.readUntil(w.headBy)
		w.headBy = noDeadline
	}
	n, err := w.Conn.Read(p)
	if w.sniff && n > 0 {
		if p[0] != recordHandshake {
			w.early = append([]byte(nil), p[:n]...)
			return 0, errNotTLS
		}
		w.sniff = false
	}
	w.keepEnd(p[:n])
	if w.shake && w.owner != nil && n > 0 {
		if why := w.owner.greets(n); why != nil {
			return 0, why
		}
	}
	return n, err
}

// An alert in the clear (RFC 8446 sections 5.1 and 6): type, legacy version, length, level, description.
const (
	recordAlert = 21
	alertRecord = 5 + 2
)

// keepEnd remembers the last bytes of what a client sends in its handshake.
func (w *wire) keepEnd(p []byte) {
	if !w.shake {
		return
	}
	p = p[max(0, len(p)-alertRecord):]
	copy(w.end[:], w.end[len(p):])
	copy(w.end[alertRecord-len(p):], p)
}

// heard is err, or where a client's handshake failed for the alert in the clear that
// it ended with: that alert. In TLS 1.3 a client that refuses our certificate may not
// have begun to encrypt (OpenSSL has not), and crypto/tls, which has, calls its alert
// a record with a bad MAC. Nothing vouches for what it says, so it gives a failure
// its name and decides nothing.
func (w *wire) heard(err error) error {
	var op *net.OpError
	e := &w.end
	if errors.As(err, &op) && op.Op == "local error" && e[0] == recordAlert && e[1] == 3 && e[2] == 3 && e[3] == 0 && e[4] == 2 && (e[5] == 1 || e[5] == 2) {
		return &net.OpError{Op: "remote error", Err: tls.AlertError(e[6])}
	}
	return err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		*w.held = append(*w.held, p...)
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// cork keeps what is written until uncork. A 64 KiB piece of a body is four or
// five TLS records; corked, they are one system call.
func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held, _ = corks.Get().(*[]byte)
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := w.held
	w.held = nil
	defer func() { *held = (*held)[:0]; corks.Put(held) }()
	_, err := w.Conn.Write(*held)
	return err
}
