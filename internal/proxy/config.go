package proxy

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/quota"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// PolicySource holds the policy in force. The zero value holds none, which
// denies everything. It is safe for concurrent use; a request keeps the set
// that it began with.
type PolicySource struct{ set atomic.Pointer[policy.Set] }

// Load returns the set in force, or nil.
func (p *PolicySource) Load() *policy.Set { return p.set.Load() }

// Store puts s in force for the requests that begin after it returns. The
// caller then calls Server.PolicyChanged for those that are under way.
func (p *PolicySource) Store(s *policy.Set) { p.set.Store(s) }

// Config is what a Server is made of. Every field without "optional" is needed;
// New refuses a nil one.
type Config struct {
	Policy   *PolicySource
	Log      *audit.Log
	Leaves   *certs.Store
	Upstream *upstream.Client
	Quota    *quota.Quota
	Identify identity.Func
	Metrics  *metrics.Metrics
	Logger   *slog.Logger

	DigestKey digest.Keyed     // optional: HMAC instead of plain SHA-256
	Limits    Limits           // optional: zero fields take their defaults
	Curves    []tls.CurveID    // optional: key agreement offered to clients; nil is Go's default
	Now       func() time.Time // optional: for deadlines and durations; by the monotonic clock
}

// Limits bound what a client can hold. Zero fields take the default that
// stands beside them. Settle and, over HTTP/1, Idle and WriteStall are the least
// that a client is given; the most is half as much again, and of Lull twice that.
type Limits struct {
	Connections             int           // open client connections in all (places.go); 16384
	ConnectionsPerClient    int           // … of one address; a quarter
	ConnectionsPerPrincipal int           // … of one principal; a quarter
	ConnectionsUnknown      int           // … that have not said whose they are; half
	ExchangesPerPrincipal   int           // requests, WebSockets and tunnels of one principal at once; 4096
	Handshake               time.Duration // CONNECT answered to TLS ready; 15 s
	Head                    time.Duration // first byte of a head to its last, and before that connected to first byte; 10 s
	HeadBytes               int64         // pages of heads of more than 4 KiB, of all clients at once; a quarter of the memory limit, 128 MiB where there is none
	WindowBytes             int64         // what HTTP/2 clients may send ahead of what is read, beyond 80 KiB a connection, all at once; as HeadBytes
	PageBytes               int64         // pages beyond 4 KiB through which bodies and answers of HTTP/1 are read, of all at once: half for requests, a quarter for answers and one for their large heads; as HeadBytes
	Idle                    time.Duration // between two requests; 2 min
	Settle                  time.Duration // … after which a connection gives back what it need not hold; 1 s
	Lull                    time.Duration // … once Shutdown has begun; 2 s
	BodyStall               time.Duration // no byte of a body; 1 min
	BodyRead                time.Duration // a body that a rule reads, whole; 30 s
	WriteStall              time.Duration // a client that does not read; 30 s, over HTTP/2 four times that
	TunnelIdle              time.Duration // passthrough and WebSocket without a byte; 10 min
	Streams                 int           // concurrent HTTP/2 streams of a connection; 100
	ControlFrames           int           // HTTP/2 frames beside requests and bodies, of one principal in a second (h2flood.go); 2000
	JudgedBytes             int64         // bodies that rules read, of one principal at once, and half of those of all; 64 MiB
	FrameBytes              int64         // largest WebSocket frame; 16 MiB
	ClientLook              time.Duration // how old an exchange is when it is first asked, and then how often, if its client is there; 1 s
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	count := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	count(&l.Connections, 16384)
	count(&l.ConnectionsPerClient, max(1, l.Connections/4))
	count(&l.ConnectionsPerPrincipal, max(1, l.Connections/4))
	count(&l.ConnectionsUnknown, max(1, l.Connections/2))
	count(&l.ExchangesPerPrincipal, 4096)
	count(&l.Streams, 100)
	count(&l.ControlFrames, 2000)
	set(&l.Handshake, 15*time.Second)
	set(&l.Head, 10*time.Second)
	set(&l.Idle, 2*time.Minute)
	set(&l.Settle, time.Second)
	set(&l.Lull, 2*time.Second)
	set(&l.BodyStall, time.Minute)
	set(&l.BodyRead, 30*time.Second)
	set(&l.WriteStall, 30*time.Second)
	set(&l.TunnelIdle, 10*time.Minute)
	set(&l.ClientLook, time.Second)
	if l.JudgedBytes <= 0 {
		l.JudgedBytes = 64 << 20
	}
	if l.HeadBytes <= 0 {
		l.HeadBytes = quarter()
	}
	if l.WindowBytes <= 0 {
		l.WindowBytes = quarter()
	}
	if l.PageBytes <= 0 {
		l.PageBytes = quarter()
	}
	if l.FrameBytes <= 0 {
		l.FrameBytes = 16 << 20
	}
	return l
}

// quarter is that of the memory limit, and 128 MiB where there is none.
func quarter() int64 {
	limit := debug.SetMemoryLimit(-1) // which reads it
	if limit == math.MaxInt64 {
		return 128 << 20
	}
	return limit / 4
}

// check refuses a Config that could not keep its promises.
func (c Config) check() error {
	switch {
	case c.Policy == nil:
		return errors.New("proxy: Config.Policy is nil (an empty PolicySource denies everything)")
	case c.Log == nil:
		return errors.New("proxy: Config.Log is nil: nothing may leave unrecorded")
	case c.Leaves == nil:
		return errors.New("proxy: Config.Leaves is nil")
	case c.Upstream == nil:
		return errors.New("proxy: Config.Upstream is nil")
	case c.Quota == nil:
		return errors.New("proxy: Config.Quota is nil")
	case c.Identify == nil:
		return errors.New("proxy: Config.Identify is nil")
	case c.Metrics == nil:
		return errors.New("proxy: Config.Metrics is nil")
	case c.Logger == nil:
		return errors.New("proxy: Config.Logger is nil")
	}
	return nil
}
