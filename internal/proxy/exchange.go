package proxy

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/digest"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/metrics"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/upstream"
)

// maxAttempts is the first sending and one retry, each in the log before it is
// sent.
const maxAttempts = 2

// client is what the exchange needs of the protocol that the agent speaks.
type client interface {
	// interim relays a 1xx answer. It may be called from the goroutine that
	// sends, before relay.
	interim(status int, fields []http1.Field) error
	// relay answers with resp, passing on each piece as it comes and the last
	// bytes only after x.complete has returned nil.
	relay(x *exchange, resp *upstream.Response) *refusal
	// refuse answers in the client's own terms. It is called at most once and
	// not after relay has begun to write.
	refuse(x *exchange, why *refusal)
	// upgrade carries a WebSocket after the origin's 101.
	upgrade(x *exchange, resp *upstream.Response) *refusal
	// began reports whether a byte of an answer was written.
	began() bool
}

// exchange is one request and its answer. It belongs to the goroutine that
// serves it, but for what rejudge reads between conn.begin and conn.end.
type exchange struct {
	s      *Server
	c      *conn
	client client
	alone  bool // of HTTP/1: no other beside it on its connection

	req      canon.Request
	body     body
	decision policy.Decision
	view     *policy.View
	judged   []byte // the body a rule has read; it is what is sent
	rec      audit.Record
	keys     []string
	reqHash  *digest.Hash
	respHash *digest.Hash
	reqSum   [digest.Size]byte
	respSum  [digest.Size]byte
	send     upstream.SendOptions
	replies  room[string] // for the large head of the answer, which passes whole or not at all
	answers  room[string] // for its body, and what its own pieces are read into: they do with less

	start     time.Time     // the head was read
	at        time.Time     // of the latest look at the clock
	decided   time.Duration // head read to decision committed
	sent      time.Duration // decision committed to response head
	recorded  bool          // an allowing decision is in the log
	completed bool          // … and so is its end

	whole bool  // the answer was released to its last byte
	held  int64 // of the principal's budget for judged bodies

	ctx    context.Context // from begin to end; cancelled by a cut
	cancel context.CancelFunc
	writes atomic.Int64  // HTTP/2: since when a part of the answer waits for its client, or from when that of a large one counts, unix nanoseconds; 0: none does
	asked  []http1.Field // the fields that were judged, before the rule's edits
	cut    atomic.Bool   // the rule of this exchange is gone, or the engine stops
}

func newExchange(s *Server) *exchange {
	x := &exchange{s: s, reqHash: digest.New(s.cfg.DigestKey), respHash: digest.New(s.cfg.DigestKey)}
	x.send.Heads, x.send.Pages = &x.replies, &x.answers
	x.send.OnInterim = func(status int, fields []http1.Field) error { return x.client.interim(status, fields) }
	return x
}

// reset prepares x for a request of c whose head was read at start.
func (x *exchange) reset(c *conn, cl client, start time.Time) {
	x.c, x.client = c, cl
	x.replies, x.answers = room[string]{x.s.replies, c.principalID}, room[string]{x.s.answers, c.principalID}
	x.decision = policy.Decision{}
	x.judged, x.view = nil, nil // not the view of the request before
	x.rec = audit.Record{}
	x.reqHash.Reset()
	x.respHash.Reset()
	x.recorded, x.completed, x.whole = false, false, false
	x.decided, x.sent = 0, 0
	x.cut.Store(false)
	x.start, x.at = start, start
}

// look reads the clock.
func (x *exchange) look() time.Time {
	x.at = x.s.now()
	return x.at
}

// serve carries the request to its end and reports whether the connection may
// carry another. parsed is why there is no request, or nil. It is the one place
// that answers, records and counts.
func (x *exchange) serve(ctx context.Context, parsed *refusal) (keep bool) {
	open := x.s.cfg.Metrics.Stream(metrics.Exchange)
	open.Inc()
	defer open.Dec()
	defer x.giveBack()
	why := parsed
	if why == nil {
		why = x.c.still(x.start)
	}
	if why == nil {
		if why = x.enter(); why == nil {
			defer x.c.tally.leave()
			why = x.judge()
		}
	}
	if why == nil {
		x.c.begin(ctx, x)
		why = x.forward()
		x.c.end(x)
	}
	if why == nil {
		return true
	}
	if x.cut.Load() {
		why = x.cutReason()
	}
	switch {
	case !x.recorded:
		why = x.recordDenial(why)
	case !x.completed:
		why = x.recordFailure(why)
	}
	if x.client.began() {
		return false
	}
	x.client.refuse(x, why)
	return !why.close
}

// judge decides by the head, then by the body where a rule that matches the
// head reads it, then by the quota. nil is an allowance.
func (x *exchange) judge() *refusal {
	x.view = x.c.policy()
	if x.view.Asks(x.req.Authority) {
		x.c.tally.inTurn(func() { x.decision = x.view.Decide(&x.req) })
	} else {
		x.decision = x.view.Decide(&x.req)
	}
	if x.decision.NeedBody {
		if why := x.readJudgedBody(); why != nil {
			return why
		}
		x.c.tally.inTurn(func() {
			x.s.parse(func() { x.decision = x.view.DecideBody(&x.req, x.judged) })
		})
	}
	d := &x.decision
	if d.Verdict != policy.Allow {
		return &refusal{
			status: statusOf(d.Reason), reason: string(d.Reason), rule: d.Rule, detail: d.Detail, policy: true, close: twoReadings(d.Reason),
		}
	}
	if d.RequestBytes > 0 && x.req.Length > d.RequestBytes {
		return &refusal{status: 413, reason: "body_too_large", rule: d.Rule, close: true}
	}
	if why := x.checkUpgrade(); why != nil {
		return why
	}
	x.body.limit = d.RequestBytes
	if len(d.Limits) > 0 {
		if reason, after, ok := x.s.cfg.Quota.Take(x.c.principal, d.Limits); !ok {
			return &refusal{status: 429, reason: reason, rule: d.Rule, retryAfter: after}
		}
	}
	return nil
}

// readJudgedBody reads a body that a rule wants to see, whole, before anything
// is decided. The bytes that were judged are the bytes that are sent (B7).
func (x *exchange) readJudgedBody() *refusal {
	limit := x.decision.BodyLimit
	if x.req.Length > limit {
		return &refusal{status: 413, reason: "body_too_large", rule: x.decision.Rule, close: true}
	}
	held := limit
	if x.req.Length >= 0 {
		held = x.req.Length
	}
	if !x.s.bodies.take(x.c.principalID, held) {
		return &refusal{status: 503, reason: "too_many_bodies", rule: x.decision.Rule, retryAfter: time.Second, close: true}
	}
	x.held = held
	x.body.by(x.s.now().Add(x.s.limits.BodyRead))
	buf := make([]byte, 0, min(max(x.req.Length, 4<<10), 64<<10))
	for {
		piece, err := x.body.Next()
		if int64(len(buf)+len(piece)) > limit {
			return &refusal{status: 413, reason: "body_too_large", rule: x.decision.Rule, close: true}
		}
		buf = append(buf, piece...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return x.body.refusal(err)
		}
	}
	x.judged = buf
	x.body.replay(buf)
	return nil
}

// giveBack ends what x holds of the principal's budget for judged bodies.
func (x *exchange) giveBack() {
	if x.held > 0 {
		x.s.bodies.give(x.c.principalID, x.held)
	}
	x.held, x.judged = 0, nil
}

// forward records the decision, sends, and relays the answer.
func (x *exchange) forward() *refusal {
	permit := x.c.permit(x)
	for attempt := 1; ; attempt++ {
		if x.cut.Load() {
			return x.cutReason()
		}
		receipt, err := x.recordDecision(attempt)
		if err != nil {
			return unrecorded(err)
		}
		before := x.at
		x.send.Principal = x.c.principalID
		x.send.Body = x.body.forUpstream()
		resp, err := x.s.cfg.Upstream.Send(x.ctx, permit, receipt, &x.req, &x.send)
		x.sent = x.look().Sub(before)
		if err == nil {
			return x.answer(resp)
		}
		why := refusalOf(err)
		why.close = why.close || !x.body.done()
		var ue *upstream.Error
		if attempt < maxAttempts && errors.As(err, &ue) && ue.Retry && !x.body.touched() {
			if x.body.replays {
				x.body.replay(x.judged)
			}
			continue
		}
		if bodyWhy := x.body.failure(); bodyWhy != nil {
			return bodyWhy
		}
		return why
	}
}

// answer relays the origin's response and closes it.
func (x *exchange) answer(resp *upstream.Response) *refusal {
	defer resp.Close()
	x.rec.StatusCode = resp.Status
	x.rec.Upstream = resp.Addr
	x.rec.UpstreamProto = resp.Proto
	if resp.Status == 101 {
		return x.client.upgrade(x, resp)
	}
	return x.client.relay(x, resp)
}

// complete writes the second record. The client implementations call it when
// the origin's answer has ended, before they release its last bytes.
func (x *exchange) complete(resp *upstream.Response) *refusal {
	resp.EndUpload()
	if !x.body.done() {
		// The origin answered without all of the body: what came is recorded as
		// a part, and the answer goes on to its end.
		x.rec.Truncated = true
	}
	x.fillEnd()
	x.rec.Event = audit.EgressAllowed
	if err := x.s.cfg.Log.Complete(&x.rec); err != nil {
		return unrecorded(err)
	}
	x.completed, x.whole = true, true
	x.s.cfg.Metrics.Observe(&x.rec)
	return nil
}
