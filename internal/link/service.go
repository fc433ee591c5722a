package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	enginev1 "github.com/arpitcoder/aegrail-engine/api/engine/v1"
	"github.com/arpitcoder/aegrail-engine/internal/bucket"
)

// service answers the calls. Each method returns what refused it, and the
// guards alone record that and tell the engine.
type service struct {
	enginev1.UnimplementedLinkServer
	backend Backend
	options ServerOptions
	calls   *bucket.Buckets[string] // by address
	signs   *bucket.Buckets[string] // by pod
	begun   *bucket.Buckets[string] // streams, by pod
	reviews *bucket.Buckets[string] // by pod, which is a gateway
	vouch   func(remote net.Addr)   // told of each caller that is known; set before the first call

	stopping chan struct{}
	stop     func()

	mu      sync.Mutex
	streams map[string]*stream // :: pod's UID → its one stream; guarded by mu
}

// stream is a Policy call under way.
type stream struct{ end context.CancelCauseFunc }

func newService(b Backend, o ServerOptions) *service {
	s := &service{
		backend: b, options: o, stopping: make(chan struct{}), streams: make(map[string]*stream),
		calls: bucket.New[string](o.CallsEach, maxKnown), signs: bucket.New[string](o.SignEach, maxKnown), begun: bucket.New[string](o.PolicyEach, maxKnown),
		reviews: bucket.New[string](o.ReviewEach, maxKnown),
	}
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	return s
}

// quiet is a refusal that was recorded before, or that is no news.
type quiet struct{ *Refusal }

func (q quiet) Unwrap() error { return q.Refusal }

// caller is who a call turned out to be. It is in the context, so that a guard
// can say whose call was refused.
type caller struct {
	peer netip.Addr
	pod  Pod
}

type callerKey struct{}

func (s *service) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	who := new(caller)
	err = s.guard(ctx, info.FullMethod, who, func(ctx context.Context) (err error) {
		resp, err = next(ctx, req)
		return err
	})
	return resp, err
}

func (s *service) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.guard(ss.Context(), info.FullMethod, new(caller), func(ctx context.Context) error {
		return next(srv, &streamWith{ss, ctx})
	})
}

// streamWith is a stream with another context.
type streamWith struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWith) Context() context.Context { return s.ctx }

// guard is the way in and out of every call: a panic ends that call alone, a
// refusal is recorded before it is told.
func (s *service) guard(ctx context.Context, method string, who *caller, call func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.options.Logger.Error("a call was ended by a panic; this is a defect", "call", method, "panic", v, "stack", string(debug.Stack()))
			err = told(fmt.Errorf("panic: %v", v))
		}
	}()
	if p, ok := peer.FromContext(ctx); ok {
		who.peer = addrOf(p.Addr)
	}
	err = call(context.WithValue(ctx, callerKey{}, who))
	if err == nil {
		return nil
	}
	if _, known := err.(quiet); !known { //nolint:errorlint // as it was returned: a wrapped one is another refusal
		s.options.Refused(Refused{Call: method[strings.LastIndexByte(method, '/')+1:], Peer: who.peer, Pod: who.pod, Err: err})
	}
	return told(err)
}

// enter says whose call it is. A flood is bounded by its address before anybody
// is asked about a token, and by its pod after.
func (s *service) enter(ctx context.Context, limit *bucket.Buckets[string]) (Pod, error) {
	who, _ := ctx.Value(callerKey{}).(*caller)
	if who == nil {
		return Pod{}, fmt.Errorf("a call without its guard; this is a defect")
	}
	if err := s.take(s.calls, who.peer.String(), "one address"); err != nil {
		return Pod{}, err
	}
	token, err := bearer(ctx)
	if err != nil {
		return Pod{}, err
	}
	ctx, done := context.WithTimeout(ctx, s.options.Authenticate)
	defer done()
	pod, err := s.backend.Authenticate(ctx, token)
	if err != nil {
		var r *Refusal
		if errors.As(err, &r) && r.Kind == Unauthenticated {
			s.calls.Fine(who.peer.String(), badToken-1)
		}
		return Pod{}, err
	}
	if pod.UID == "" || pod.Namespace == "" || pod.ServiceAccount != "" && pod.Gateway {
		return Pod{}, fmt.Errorf("the backend vouches for a pod without UID or namespace, or a gateway of one account; this is a defect")
	}
	who.pod = pod
	if p, ok := peer.FromContext(ctx); ok && s.vouch != nil {
		s.vouch(p.Addr)
	}
	return pod, s.take(limit, pod.UID, "this pod")
}

func (s *service) take(b *bucket.Buckets[string], key, whose string) error {
	ok, news := b.Take(key, s.options.Now())
	if ok {
		return nil
	}
	r := Refuse(TooMany, "rate_limited", "too many calls of %s; wait and call again", whose)
	if !news {
		return quiet{r}
	}
	return r
}

// badToken is how many calls one counts as whose token is not taken: each has
// cost the API server a review, and an engine's own are taken.
const badToken = 10

// bearer is the token of a call.
func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return "", Refuse(Unauthenticated, "no_token", "want one authorization: Bearer TOKEN, got %d", len(values))
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if token = strings.TrimSpace(token); !ok || token == "" || len(token) > maxToken {
		return "", Refuse(Unauthenticated, "no_token", "want authorization: Bearer TOKEN, with a service account token of at most %d bytes", maxToken)
	}
	return token, nil
}

// SignCA has a request signed that is exactly the template in force.
func (s *service) SignCA(ctx context.Context, req *enginev1.SignCARequest) (*enginev1.SignCAResponse, error) {
	pod, err := s.enter(ctx, s.signs)
	if err != nil {
		return nil, err
	}
	p, _, err := s.backend.Policy(pod)
	if err != nil {
		return nil, err
	}
	if err := CheckRequest(req.GetCsrDer(), p.Template); err != nil {
		if req.GetRevision() != p.Revision {
			return nil, Refuse(Stale, "stale_policy", "the policy of this pod has changed; ask for what the new one allows")
		}
		return nil, err
	}
	ctx, done := context.WithTimeout(ctx, s.options.Sign)
	defer done()
	signed, err := s.backend.Sign(ctx, pod, req.GetCsrDer(), p.Revision)
	if err != nil {
		return nil, err
	}
	resp := &enginev1.SignCAResponse{ChainDer: signed.Chain}
	if !signed.RenewAfter.IsZero() {
		resp.RenewAfter = timestamppb.New(signed.RenewAfter)
	}
	return resp, nil
}

// Review says whose a connection to a gateway is.
func (s *service) Review(ctx context.Context, req *enginev1.ReviewRequest) (*enginev1.ReviewResponse, error) {
	gateway, err := s.enter(ctx, s.reviews)
	if err != nil {
		return nil, notTheCaller(err)
	}
	reviewer, ok := s.backend.(Reviewer)
	if !ok || !gateway.Gateway {
		return nil, Refuse(Denied, "not_a_gateway", "whose a connection is, is told to gateways alone")
	}
	who := Caller{Token: req.GetToken()}
	if who.Token == "" {
		who.Address, err = netip.ParseAddr(req.GetAddress())
	}
	if err != nil || len(who.Token) > maxToken || who.Token != "" && req.GetAddress() != "" {
		return nil, Refuse(Invalid, "bad_caller", "want the token of a caller, or else its address")
	}
	ctx, done := context.WithTimeout(ctx, s.options.Authenticate)
	defer done()
	pod, err := reviewer.Review(ctx, gateway, who)
	if err != nil {
		return nil, notOurToken(err)
	}
	if pod.Namespace != gateway.Namespace || pod.ServiceAccount == "" {
		return nil, Refuse(Denied, "another_namespace", "the caller is no pod of namespace %s, which this gateway serves; use the gateway of its own", gateway.Namespace)
	}
	return &enginev1.ReviewResponse{Principal: principal(pod)}, nil
}

// notOurToken keeps a gateway from taking the refusal of a caller's token for
// that of its own.
func notOurToken(err error) error {
	var r *Refusal
	if errors.As(err, &r) && r.Kind == Unauthenticated {
		return Refuse(Denied, r.Reason, "%s", r.Text)
	}
	return err
}

// notTheCaller keeps a gateway from taking its own refusal for that of the caller
// it asks about. What is recorded stays.
func notTheCaller(err error) error {
	var r *Refusal
	if errors.As(err, &r) && r.Kind == Denied {
		return asker{err, Refuse(Unauthenticated, r.Reason, "%s", r.Text)}
	}
	return err
}

// asker is an error of who asks about a caller, and what it is told of it.
type asker struct {
	error
	told *Refusal
}

func (a asker) Unwrap() error { return a.error }

// As is for errors.As.
func (a asker) As(target any) bool {
	r, ok := target.(**Refusal)
	if ok {
		*r = a.told
	}
	return ok
}

func principal(pod Pod) *enginev1.Principal {
	return &enginev1.Principal{Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount, Pod: pod.Name, Claimed: pod.Claimed}
}

// Policy sends what is in force until the stream's time is up, a newer stream
// of the same pod begins, or control stops. An engine whose connection broke
// without a word is not kept out by what is left of it.
func (s *service) Policy(req *enginev1.PolicyRequest, out grpc.ServerStreamingServer[enginev1.PolicyUpdate]) error {
	pod, err := s.enter(out.Context(), s.begun)
	if err != nil {
		return err
	}
	s.options.Logger.Debug("an engine follows its policy", "namespace", pod.Namespace, "pod", pod.Name, "gateway", pod.Gateway, "version", clip(req.GetEngineVersion(), maxVersion))
	ctx, end := context.WithCancelCause(out.Context())
	defer end(nil)
	defer s.join(pod.UID, end)()
	life := s.options.StreamLife
	ended := time.NewTimer(life + rand.N(life/2+1)) // spread, so that a restart's crowd does not come back as one
	defer ended.Stop()
	var sent *Policy
	for {
		p, changed, err := s.backend.Policy(pod)
		if err != nil {
			return err
		}
		if len(p.YAML) > maxPolicy {
			return Refuse(Unavailable, "policy_too_large", "the policy of this pod has %d bytes, at most %d are sent; write fewer rules, or rules with patterns", len(p.YAML), maxPolicy)
		}
		if sent == nil || !p.equal(*sent) {
			if err := out.Send(update(pod, p)); err != nil {
				return quiet{Refuse(Unavailable, "gone", "the engine went away")}
			}
			sent = &p
		}
		select {
		case <-changed:
			// A burst of changes is one update; a backend that is never at rest
			// costs ten calls a second and no processor.
			select {
			case <-time.After(settle):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return quiet{Refuse(Unavailable, "ended", "a newer stream of this pod took over, or the engine went away")}
		case <-ended.C:
			return quiet{Refuse(Unavailable, again, "the stream has had its time; call again with a fresh token")}
		case <-s.stopping:
			return quiet{Refuse(Unavailable, again, "this replica of aegrail-control stops; call again")}
		}
	}
}

// settle is how long changes are gathered.
const settle = 100 * time.Millisecond

// again is the reason of a stream that ended by plan.
const again = "call_again"

// join makes end the way to end uid's one stream, and ends the one before.
func (s *service) join(uid string, end context.CancelCauseFunc) (leave func()) {
	mine := &stream{end: end}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.streams[uid]; before != nil {
		before.end(context.Canceled)
	}
	s.streams[uid] = mine
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.streams[uid] == mine {
			delete(s.streams, uid)
		}
	}
}

func (p Policy) equal(q Policy) bool {
	return p.Revision == q.Revision && bytes.Equal(p.YAML, q.YAML) && p.Template.equal(q.Template)
}

func (t Template) equal(u Template) bool {
	return t.Unconstrained == u.Unconstrained && bytes.Equal(t.RawSubject, u.RawSubject) && bytes.Equal(t.NameConstraints, u.NameConstraints)
}

func update(pod Pod, p Policy) *enginev1.PolicyUpdate {
	return &enginev1.PolicyUpdate{
		PolicyYaml: p.YAML, Revision: p.Revision,
		Principal: principal(pod),
		Template: &enginev1.CATemplate{
			RawSubject: p.Template.RawSubject, NameConstraints: p.Template.NameConstraints, Unconstrained: p.Template.Unconstrained,
		},
	}
}
