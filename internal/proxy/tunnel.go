package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
)

// passthrough carries a CONNECT to a host whose rule says tls: passthrough, for
// clients that pin their certificates. The ClientHello is read, its name must
// be the target's, and then the bytes are spliced by the kernel, unread.
func (c *conn) passthrough() {
	c.flow.TLS = true
	_ = c.tcp.SetReadDeadline(c.s.now().Add(c.s.limits.Handshake))
	c.wire.sniff = false
	c.wire.shake = true
	hello, err := intake.PeekHello(&c.wire)
	c.wire.shake = false
	if err != nil {
		if errors.Is(err, intake.ErrNotTLS) {
			err = errNotTLS
		}
		c.refuseQuietly(c.handshakeRefusal(err))
		return
	}
	if why := c.agree(hello); why != nil {
		c.refuseHello(why)
		return
	}
	c.wire.early = append(hello.Raw, c.wire.early...)
	c.spliceTunnel(hello)
}

// spliceTunnel judges, records, dials and splices.
func (c *conn) spliceTunnel(hello *intake.Hello) {
	if hello.ECH {
		// Whose name the origin will see cannot be known (A14).
		c.refuseHello(&refusal{status: 403, reason: "ech_in_passthrough", detail: "a passthrough ClientHello must not hide its name"})
		return
	}
	x := c.exchange()
	t := &tunnel{c: c, early: c.wire.early}
	c.wire.early, hello.Raw = nil, nil
	x.reset(c, nil, c.s.now())
	x.body.reset(c.s, x.reqHash)
	x.req.FromTunnel(c.s.ids.Add(1), c.authority)
	c.scheme = canon.Tunnel
	_ = c.tcp.SetDeadline(noDeadline)
	open := c.s.cfg.Metrics.Stream(metrics.Passthrough)
	open.Inc()
	defer open.Dec()
	x.serveTunnel(t)
}

// tunnel is a spliced connection.
type tunnel struct {
	c     *conn
	early []byte
	moved [2]atomic.Int64 // bytes to the origin, bytes to the client
	idle  time.Duration
	last  atomic.Int64 // when something moved, unix nanoseconds
}

// serveTunnel is exchange.serve for bytes that nobody reads: the same order of
// decision, record, dial, and record of the end.
func (x *exchange) serveTunnel(t *tunnel) {
	why := x.enter()
	if why == nil {
		defer x.c.tally.leave()
		why = x.judge()
	}
	if why == nil {
		x.c.begin(context.Background(), x)
		why = x.forwardTunnel(t)
		x.c.end(x)
	}
	if !x.recorded {
		_ = x.recordDenial(why) // refused either way; an alert is all that can be said
		_, _ = x.c.tcp.Write(unrecognizedName[:])
		return
	}
	if x.cut.Load() {
		why = x.cutReason()
	}
	x.recordTunnelEnd(t, why)
}

func (x *exchange) forwardTunnel(t *tunnel) *refusal {
	permit := x.c.permit(x)
	if x.cut.Load() {
		return x.cutReason()
	}
	receipt, err := x.recordDecision(1)
	if err != nil {
		return unrecorded(err)
	}
	nc, err := x.s.cfg.Upstream.Dial(x.ctx, permit, receipt, &x.req)
	if err != nil {
		return refusalOf(err)
	}
	defer nc.Close()
	x.rec.Upstream = addrPortOf(nc)
	stop := context.AfterFunc(x.ctx, func() { _ = rawOf(nc).Close() })
	defer stop()
	return t.splice(nc, x.s.limits.TunnelIdle)
}

// recordTunnelEnd writes what a tunnel came to. There is nobody left to answer:
// where the log cannot take it, the log's latched failure refuses what comes next.
func (x *exchange) recordTunnelEnd(t *tunnel, why *refusal) {
	rec := &x.rec
	rec.Phase, rec.Event = audit.PhaseComplete, audit.EgressAllowed
	rec.RequestBytes, rec.ResponseBytes = t.moved[0].Load(), t.moved[1].Load()
	rec.Duration = x.look().Sub(x.start)
	if why != nil {
		setRefusal(rec, why)
	}
	if err := x.s.cfg.Log.Complete(rec); err != nil {
		x.s.cfg.Logger.Error("the end of a tunnel could not be recorded", "error", err)
	}
	x.completed = true
	x.s.cfg.Metrics.Observe(rec)
}

// splice copies both ways until both ends have closed or nothing has moved for
// idle. Between two TCP connections io.Copy is splice(2). Resets and closes are
// how tunnels end, and no refusal.
func (t *tunnel) splice(nc net.Conn, idle time.Duration) *refusal {
	t.idle = idle
	t.touch()
	done := make(chan error, 2)
	go func() {
		done <- t.c.s.guarded(func() error {
			n, err := nc.Write(t.early)
			t.early = nil
			t.moved[0].Add(int64(n))
			if err != nil {
				return err
			}
			return t.copyHalf(nc, t.c.tcp, &t.moved[0])
		})
	}()
	go func() {
		done <- t.c.s.guarded(func() error { return t.copyHalf(t.c.tcp, nc, &t.moved[1]) })
	}()
	err := <-done
	if err != nil {
		_ = nc.Close()
		_ = t.c.tcp.Close()
	}
	if second := <-done; err == nil {
		err = second
	}
	if isTimeout(err) {
		return &refusal{status: 504, reason: "tunnel_idle", failed: true}
	}
	return nil
}

func (t *tunnel) touch() { t.last.Store(t.c.s.now().UnixNano()) }

const (
	spliceStep = 1 << 20 // what is copied at most between two looks at the clock
	idleLooks  = 4       // looks at the clock in the time that makes a tunnel idle
)

// copyHalf copies one direction and passes its end on as a half-close. The
// deadline rolls: what came before it, in either direction, is a reason to
// go on, however slowly.
func (t *tunnel) copyHalf(dst, src net.Conn, moved *atomic.Int64) error {
	for {
		_ = src.SetReadDeadline(t.c.s.now().Add(t.idle / idleLooks))
		n, err := io.CopyN(dst, src, spliceStep)
		moved.Add(n)
		if n > 0 {
			t.touch()
		}
		switch {
		case err == nil:
		case err == io.EOF:
			if half, ok := dst.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return nil
		case isTimeout(err) && t.c.s.now().UnixNano()-t.last.Load() < int64(t.idle):
		default:
			return err
		}
	}
}

func addrPortOf(nc net.Conn) netip.AddrPort {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}
