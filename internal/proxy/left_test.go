package proxy_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/proxy"
)

// thinking is an engine whose origins answer /slow only when proceed is called,
// and otherwise at once. arrived has one element for each request to it that
// came whole.
func thinking(t *testing.T) (e *enginetest.Engine, arrived <-chan struct{}, proceed func()) {
	t.Helper()
	released, whole := make(chan struct{}), make(chan struct{}, 16)
	answer := func(c *enginetest.OriginConn, r enginetest.Seen) {
		if r.Target != "/slow" {
			c.Reply(200, "answered")
			return
		}
		whole <- struct{}{}
		gone := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, c); close(gone) }()
		select {
		case <-released:
			c.Printf("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nanswered")
			<-gone
		case <-gone:
		}
	}
	e = enginetest.Start(t, &enginetest.Options{
		Policy: "- name: both\n  {{to \"allowed.test\"}}\n- name: plain\n  {{to \"plain.test\"}}\n",
		Limits: proxy.Limits{ClientLook: 5 * time.Millisecond},
		Hosts:  map[string]enginetest.Host{"allowed.test": {Answer: answer}, "plain.test": {Plain: true, Answer: answer}},
	})
	proceed = sync.OnceFunc(func() { close(released) })
	t.Cleanup(proceed)
	return e, whole, proceed
}

// TestAClientThatLeavesIsNoticedWhileTheOriginThinks has an origin that would
// never answer.
func TestAClientThatLeavesIsNoticedWhileTheOriginThinks(t *testing.T) {
	e, arrived, _ := thinking(t)
	reset := func(c *net.TCPConn) {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	tcp := func(c *enginetest.Conn) *net.TCPConn {
		if tc, ok := c.Conn.(*tls.Conn); ok {
			return tc.NetConn().(*net.TCPConn)
		}
		return c.Conn.(*net.TCPConn)
	}
	inTunnel, atPort := tunnelWay(e), plainWay(e)
	for i, row := range []struct {
		what  string
		way   way
		leave func(c *enginetest.Conn)
	}{
		{"close_notify and FIN", inTunnel, func(c *enginetest.Conn) { _ = c.Conn.Close() }},
		{"a FIN alone", inTunnel, func(c *enginetest.Conn) { _ = tcp(c).Close() }},
		{"a FIN behind the next request", inTunnel, func(c *enginetest.Conn) { c.Send(inTunnel.raw(smuggled)); _ = tcp(c).Close() }},
		{"a reset", inTunnel, func(c *enginetest.Conn) { reset(tcp(c)) }},
		{"a reset at the proxy port", atPort, func(c *enginetest.Conn) { reset(tcp(c)) }},
	} {
		t.Run(row.what, func(t *testing.T) {
			c := row.way.dial(t)
			c.Send(row.way.raw("POST {at}/slow HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nbody"))
			<-arrived
			row.leave(c)
			e.WantRecords(t, i+1, enginetest.Fields{
				"event": "egress_error", "phase": "complete", "path": "/slow", "reason": "client_aborted",
				"request_bytes": 4, "request_sha256": sum("body"), "response_bytes": 0,
			})
		})
	}
	e.NoRecord(t, enginetest.Fields{"path": "/smuggled"})
}

// TestAClientThatListensIsAnswered has clients that have said all they have to
// say, or have sent their next request already, and an origin that thinks for
// longer than the engine looks away.
func TestAClientThatListensIsAnswered(t *testing.T) {
	e, arrived, proceed := thinking(t)
	inTunnel, atPort := tunnelWay(e), plainWay(e)
	const slow = "GET {at}/slow HTTP/1.1\r\nHost: {host}\r\n\r\n"
	half, plain, eager := inTunnel.dial(t), atPort.dial(t), inTunnel.dial(t)
	half.Send(inTunnel.raw(slow))
	endWrites(t, half)
	plain.Send(atPort.raw(slow))
	endWrites(t, plain)
	eager.Send(inTunnel.raw(slow + "GET {at}/next HTTP/1.1\r\nHost: {host}\r\n\r\n"))
	for range 3 {
		<-arrived
	}
	for i := range 2 { // each is noticed by a look that comes after the one before
		gone := inTunnel.dial(t)
		gone.Send(inTunnel.raw(slow))
		<-arrived
		_ = gone.Close()
		e.WantRecords(t, 1+i, enginetest.Fields{"phase": "complete", "reason": "client_aborted"})
	}
	proceed()
	for what, c := range map[string]*enginetest.Conn{"close_notify alone": half, "a FIN at the proxy port": plain} {
		if r := c.Reply("GET"); r.Status != 200 || r.Body != "answered" {
			t.Errorf("%s: %d %q", what, r.Status, r.Reason())
		}
		c.WantClosed()
	}
	for range 2 {
		if r := eager.Reply("GET"); r.Status != 200 {
			t.Errorf("with the next request sent: %d %q", r.Status, r.Reason())
		}
	}
	e.WantRecord(t, enginetest.Fields{"event": "egress_allowed", "phase": "complete", "path": "/next"})
}
