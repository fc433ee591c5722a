package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	enginev1 "github.com/arpitcoder/aegrail-engine/api/engine/v1"
	"github.com/arpitcoder/aegrail-engine/certs"
)

// Update is what control says is in force for this pod.
type Update struct {
	Pod Pod // namespace, service account, name and claim
	Policy
}

// Part is what a Report is about.
type Part string

// The parts.
const (
	PartControl Part = "control" // the connection
	PartPolicy  Part = "policy"
	PartCA      Part = "ca"
)

// Engine is what a Client keeps up to date. It is called by one goroutine at a
// time and may take its time: requests do not wait for it.
type Engine interface {
	// Compile checks what control sent, and changes nothing. live puts it in
	// force. What does not compile leaves the last good policy in force.
	Compile(u Update) (live func(), err error)

	// Authority makes a sign every leaf from now on; nil: no leaf is to be had.
	Authority(a *certs.Authority)

	// Report says how a part is: news that it was replaced, or what is wrong with
	// it, in which case what was in force before stays. It may repeat itself.
	Report(part Part, changed bool, err error)
}

// ClientOptions are what a Client is made of.
type ClientOptions struct {
	Address  string                         // host:port; the host is the name in control's certificate
	Roots    func() (*x509.CertPool, error) // what that is verified by, asked at each connection; nothing else is
	Token    func() (string, error)         // asked at each call
	Trusted  []*x509.Certificate            // the roots that this pod's clients trust; nil: not known
	Version  string                         // of the engine, for control's log
	Logger   *slog.Logger                   // nil: none
	Patience time.Duration                  // how long a policy waits for the authority that its new hosts need; 30 s
	Gateway  bool                           // the policy is of a whole namespace, and callers are asked about
	Away     time.Duration                  // how long control may be away before that is reported; 1 min

	// Dial connects to Address, and finds its name; nil: as the system does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client is the engine's end of the link.
type Client struct {
	options ClientOptions
	conn    *grpc.ClientConn
	rpc     enginev1.LinkClient
	first   time.Duration // until a stream's first update
}

// Times of an engine's calls.
const (
	firstUpdate = 30 * time.Second
	signTime    = 90 * time.Second // a signature: cert-manager has a queue
	retryLeast  = 500 * time.Millisecond
	retryStream = 15 * time.Second
	retrySign   = time.Minute
	maxRevision = 128
)

// NewClient makes a Client, which connects when it is run.
func NewClient(o ClientOptions) (*Client, error) {
	host, port, err := net.SplitHostPort(o.Address)
	switch {
	case err != nil || host == "" || port == "":
		return nil, fmt.Errorf("control's address %q: want host:port, like aegrail-control.aegrail-system.svc:8443", o.Address)
	case o.Roots == nil || o.Token == nil:
		return nil, errors.New("link: roots and a token are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	positive(&o.Patience, 30*time.Second)
	positive(&o.Away, time.Minute)
	target, dialler := "dns:///"+o.Address, grpc.DialOption(grpc.EmptyDialOption{})
	if o.Dial != nil {
		// The name is the dialler's to find: a lookup of gRPC's own would go another way.
		target = "passthrough:///" + o.Address
		dialler = grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return o.Dial(ctx, "tcp", address) })
	}
	conn, err := grpc.NewClient(target, dialler,
		grpc.WithTransportCredentials(verified{name: host, roots: o.Roots}),
		grpc.WithPerRPCCredentials(tokens{o.Token}),
		// The proxy variables are an agent's way to the engine, and a DNS record
		// must not configure the link.
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("aegrail-engine/"+o.Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxPolicy+1<<20), grpc.MaxCallSendMsgSize(maxReceived)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryLeast, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 10 * time.Second},
			MinConnectTimeout: handshakeTime,
		}))
	if err != nil {
		return nil, fmt.Errorf("control's address %q: %w", o.Address, err)
	}
	return &Client{options: o, conn: conn, rpc: enginev1.NewLinkClient(conn), first: firstUpdate}, nil
}

// Run keeps engine up to date until ctx ends. A Client runs once.
func (c *Client) Run(ctx context.Context, engine Engine) {
	defer func() { _ = c.conn.Close() }()
	k := newKeeper(engine, c.options, c.sign)
	var wg sync.WaitGroup
	wg.Go(func() { c.follow(ctx, k) })
	k.run(ctx)
	wg.Wait()
}

// follow holds a Policy stream, and tells k what comes out of it.
func (c *Client) follow(ctx context.Context, k *keeper) {
	failures := 0
	for ctx.Err() == nil {
		got, err := c.stream(ctx, k)
		var r *Refusal
		if errors.As(err, &r) && r.Reason == again && got {
			failures = 0
			pause(ctx, rand.N(time.Second)) // control's replicas are not to be called by all at once
			continue
		}
		if got {
			failures = 0
		}
		if ctx.Err() == nil {
			k.tell(event{away: err})
		}
		c.options.Logger.Debug("the stream of aegrail-control ended", "err", err)
		pause(ctx, retry(failures, retryStream))
		failures++
	}
}

// stream follows one stream to its end, and reports whether anything came.
func (c *Client) stream(ctx context.Context, k *keeper) (got bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	late := time.AfterFunc(c.first, func() { end(errors.New("control accepted the call and sent no policy")) })
	defer late.Stop()
	stream, err := c.rpc.Policy(ctx, &enginev1.PolicyRequest{EngineVersion: c.options.Version})
	for err == nil {
		var m *enginev1.PolicyUpdate
		if m, err = stream.Recv(); err != nil {
			break
		}
		got = true
		late.Stop()
		k.tell(event{update: received(m)})
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return got, cause
	}
	return got, heard(err)
}

// Review says whose a connection is that comes with token, or where that is ""
// from addr. It is for gateways; control refuses it to others.
func (c *Client) Review(ctx context.Context, token string, addr netip.Addr) (Pod, error) {
	req := &enginev1.ReviewRequest{Token: token}
	if token == "" {
		req.Address = addr.Unmap().String()
	}
	resp, err := c.rpc.Review(ctx, req)
	if err != nil {
		return Pod{}, heard(err)
	}
	pod := podOf(resp.GetPrincipal())
	if pod.Namespace == "" || pod.ServiceAccount == "" {
		return Pod{}, errors.New("control does not say whose the connection is")
	}
	return pod, nil
}

func podOf(who *enginev1.Principal) Pod {
	return Pod{Namespace: who.GetNamespace(), ServiceAccount: who.GetServiceAccount(), Name: who.GetPod(), Claimed: who.GetClaimed()}
}

// received is an update as it came off the wire.
func received(m *enginev1.PolicyUpdate) *Update {
	t := m.GetTemplate()
	return &Update{
		Pod: podOf(m.GetPrincipal()),
		Policy: Policy{YAML: m.GetPolicyYaml(), Revision: m.GetRevision(), Template: Template{
			RawSubject: t.GetRawSubject(), NameConstraints: t.GetNameConstraints(), Unconstrained: t.GetUnconstrained(),
		}},
	}
}

// check says why an update cannot be what control means.
func (u *Update) check(gateway bool) error {
	switch {
	case u.Pod.Namespace == "" || u.Pod.ServiceAccount == "" && !gateway:
		return errors.New("control does not say whose pod this is")
	case u.Pod.ServiceAccount != "" && gateway:
		return errors.New("control takes this gateway for a pod of one agent")
	case u.Revision == "" || len(u.Revision) > maxRevision || strings.ContainsFunc(u.Revision, unprintable):
		return fmt.Errorf("control names the policy by a revision of %d bytes, want 1 to %d that can be printed", len(u.Revision), maxRevision)
	case u.Template.Unconstrained && len(u.Template.NameConstraints) > 0:
		return errors.New("control's template for the certificate authority is unconstrained and has constraints")
	}
	return nil
}

func unprintable(r rune) bool { return r <= ' ' || r > '~' }

// sign asks control for the certificate that a is about.
func (c *Client) sign(ctx context.Context, a *attempt, revision string) (signed, error) {
	ctx, done := context.WithTimeout(ctx, signTime)
	defer done()
	resp, err := c.rpc.SignCA(ctx, &enginev1.SignCARequest{CsrDer: a.request, Revision: revision})
	if err != nil {
		return signed{}, heard(err)
	}
	waitForClock(ctx, resp.GetChainDer())
	now := time.Now()
	authority, err := a.authority(resp.GetChainDer(), c.options.Trusted, now)
	if err != nil {
		return signed{}, err
	}
	var asked time.Time
	if at := resp.GetRenewAfter(); at.IsValid() {
		asked = at.AsTime()
	}
	return signed{template: a.template, authority: authority, renewAt: renewal(authority.Certificate(), asked, now)}, nil
}

// maxSkew is how far the issuer's clock may be ahead of ours.
const maxSkew = time.Minute

// waitForClock waits until the first of chain is valid: the issuer begins it at
// its own time, and a clock that is behind would find the next one invalid too.
func waitForClock(ctx context.Context, chain [][]byte) {
	if len(chain) == 0 {
		return
	}
	if cert, err := x509.ParseCertificate(chain[0]); err == nil {
		if wait := time.Until(cert.NotBefore); wait > 0 && wait <= maxSkew {
			pause(ctx, wait)
		}
	}
}

// retry is how long to wait after so many failures, of which at least half.
func retry(failures int, most time.Duration) time.Duration {
	d := most
	if failures < 10 {
		d = min(most, retryLeast<<failures)
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
