package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	enginev1 "github.com/arpitcoder/aegrail-engine/api/engine/v1"
	"github.com/arpitcoder/aegrail-engine/internal/bucket"
)

// Bounds of what a caller can hold or send before and after it is known.
const (
	maxReceived   = maxRequest + 4<<10 // a request and what is around it
	maxPolicy     = 8 << 20            // 8 MiB: etcd holds 1.5 MiB in one object
	maxHeaders    = 32 << 10           // a token has 1 to 2 KiB
	maxToken      = 16 << 10
	maxStreams    = 8 // of one connection: an engine has two calls at once
	maxVersion    = 64
	maxKnown      = 1 << 16
	handshakeTime = 10 * time.Second
	idleTime      = 5 * time.Minute
	drainTime     = 5 * time.Second
)

// ServerOptions are what a Server is made of. Zero fields but the first two take
// the default beside them.
type ServerOptions struct {
	// GetCertificate is asked at each handshake, so that a renewed certificate
	// is presented without a restart.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Refused is told each call that was refused and each caller that was not
	// authenticated, before the engine is: control records, counts and emits
	// Events there. Of a flood it is told the first. It is called concurrently
	// and must not block.
	Refused func(Refused)

	Logger *slog.Logger     // none
	Now    func() time.Time // time.Now

	Connections     int           // in all; 5000, which fit in the 512 MiB that the chart gives control
	ConnectionsEach int           // of one address, which may be a node's; 256
	Unknown         time.Duration // how long a connection may be there before a call on it is authenticated; 1 min
	CallsEach       Rate          // of one address, before it is known who calls, of which a bad token costs ten; 20 a second after 256
	SignEach        Rate          // certificates for one pod; one in 10 s after 10
	PolicyEach      Rate          // streams that one pod begins; one in 5 s after 20
	Authenticate    time.Duration // how long Backend.Authenticate may take; 10 s
	Sign            time.Duration // … and Sign; 1 min
	ReviewEach      Rate          // callers that one gateway asks about; 20 a second after 256
	StreamLife      time.Duration // after which a stream ends, so that its token is looked at again; 10 min and up to half as much
}

// Rate is a bound: Burst at once, then PerSecond.
type Rate = bucket.Rate

// Refused is a call that was refused.
type Refused struct {
	Call string     // "SignCA", "Policy", "Review", or "connect"
	Peer netip.Addr // where it came from
	Pod  Pod        // whose it is; the zero value: not authenticated
	Err  error      // why; a *Refusal is what the engine is told
}

func (o ServerOptions) withDefaults() ServerOptions {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	positive(&o.Connections, 5000)
	positive(&o.ConnectionsEach, 256)
	positive(&o.Unknown, time.Minute)
	positive(&o.Authenticate, 10*time.Second)
	positive(&o.Sign, time.Minute)
	positive(&o.StreamLife, 10*time.Minute)
	for _, r := range []struct{ given, usual *Rate }{
		{&o.CallsEach, &Rate{PerSecond: 20, Burst: 256}},
		{&o.ReviewEach, &Rate{PerSecond: 20, Burst: 256}},
		{&o.SignEach, &Rate{PerSecond: 0.1, Burst: 10}},
		{&o.PolicyEach, &Rate{PerSecond: 0.2, Burst: 20}},
	} {
		if r.given.PerSecond <= 0 || r.given.Burst <= 0 {
			*r.given = *r.usual
		}
	}
	return o
}

// positive gives *v its default unless it is one that bounds something.
func positive[T int | time.Duration](v *T, usual T) {
	if *v <= 0 {
		*v = usual
	}
}

// Server is control's end of the link.
type Server struct {
	options ServerOptions
	service *service
	grpc    *grpc.Server
}

// NewServer refuses to be without what makes it safe: a backend that knows the
// callers, a certificate, and somebody to tell what was refused.
func NewServer(b Backend, o ServerOptions) (*Server, error) {
	switch {
	case b == nil:
		return nil, errors.New("link: no Backend: nobody would know whose engine calls")
	case o.GetCertificate == nil:
		return nil, errors.New("link: ServerOptions.GetCertificate is nil: the link is TLS or nothing")
	case o.Refused == nil:
		return nil, errors.New("link: ServerOptions.Refused is nil: nothing is refused unrecorded")
	}
	o = o.withDefaults()
	s := &Server{options: o, service: newService(b, o)}
	s.grpc = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: o.GetCertificate})),
		grpc.MaxRecvMsgSize(maxReceived), grpc.MaxSendMsgSize(maxPolicy+1<<20),
		grpc.MaxHeaderListSize(maxHeaders), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery / 2}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTime,
			// An engine that reads nothing more holds its connection no longer than this.
			MaxConnectionAge: 3 * o.StreamLife, MaxConnectionAgeGrace: o.Sign,
			Time: pingEvery, Timeout: pingTimeout,
		}),
		grpc.ChainUnaryInterceptor(s.service.guardUnary), grpc.ChainStreamInterceptor(s.service.guardStream),
	)
	enginev1.RegisterLinkServer(s.grpc, s.service)
	return s, nil
}

// An idle connection is asked for a sign of life every pingEvery, from both
// ends: a network policy or a NAT that forgot it drops packets without a word.
const (
	pingEvery   = 30 * time.Second
	pingTimeout = 10 * time.Second
)

// Serve takes connections from ln, which it closes, until ctx ends. Streams end
// then with UNAVAILABLE, which sends the engines to another replica; a
// signature under way may finish within 5 s. A Server serves once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	full := func(addr netip.Addr) {
		s.options.Refused(Refused{Call: "connect", Peer: addr, Err: Refuse(TooMany, "too_many_connections", "too many connections of one address or in all; this one was closed")})
	}
	done := make(chan error, 1)
	g := &gate{
		Listener: ln, total: s.options.Connections, each: s.options.ConnectionsEach, unknown: s.options.Unknown, full: full,
		by: make(map[netip.Addr]int), strangers: make(map[string]*time.Timer),
	}
	s.service.vouch = g.vouch
	go func() { done <- s.grpc.Serve(g) }()
	select {
	case err := <-done:
		s.service.stop()
		s.grpc.Stop()
		return fmt.Errorf("serving the link on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.service.stop()
	drained := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainTime):
		s.grpc.Stop()
		<-drained
	}
	return <-done // nil: the end was ours
}
