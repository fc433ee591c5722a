package proxy

import (
	"cmp"
	"context"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// How what is under way ends when its rule is gone. The rules are:
//
//   - begin makes an exchange visible, end takes it back; in between its request
//     does not change but for the header edits, and what was judged is kept;
//   - PolicyChanged asks the new set about everything visible: where no condition
//     has a say, under the connection's lock; where one has, outside of it, for no
//     longer than rejudgeWait and for each principal in turn, so that who has many
//     requests under way, each of which takes long, makes nobody else wait;
//   - an exchange sees the set in force when it begins, so that none slips
//     between a verdict and its visibility;
//   - to cut is to cancel the exchange's context. Upstream looks at it before the
//     first byte of a request leaves, and everything that waits ends with it.

// rejudgeWait bounds how long an exchange that a condition must judge again may
// go on under the old rules. What was not judged by then is cut.
const rejudgeWait = time.Second

// begin makes x visible to a change of the policy. Over HTTP/1 an exchange keeps
// its context from one request to the next, unless a cut that came with the end of
// the last one has ended it.
func (c *conn) begin(ctx context.Context, x *exchange) {
	switch {
	case !x.alone:
		x.ctx, x.cancel = context.WithCancel(ctx)
	case x.ctx == nil || x.ctx.Err() != nil:
		w := newWatched()
		x.ctx, x.cancel = w, w.end
	}
	c.mu.Lock()
	x.asked = append(x.asked[:0], x.req.Fields...)
	switch {
	case x.alone:
		c.one = x
	case c.streams == nil:
		c.streams = map[*exchange]struct{}{x: {}}
	default:
		c.streams[x] = struct{}{}
	}
	slow := x.rejudge()
	c.mu.Unlock()
	if slow != nil {
		x.c.tally.inTurn(func() { slow.judge(new(canon.Request)) })
	}
}

// permit mints the permit of x, which applies the rule's header edits.
func (c *conn) permit(x *exchange) policy.Permit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return x.decision.Permit(&x.req)
}

// end takes x back.
func (c *conn) end(x *exchange) {
	c.mu.Lock()
	if x.alone {
		c.one = nil
	} else {
		delete(c.streams, x)
	}
	c.mu.Unlock()
	if !x.alone {
		x.cancel()
	}
}

// active yields what is under way, with c.mu held.
func (c *conn) active(yield func(*exchange) bool) {
	if c.one != nil && !yield(c.one) {
		return
	}
	for x := range c.streams {
		if !yield(x) {
			return
		}
	}
}

// carries reports whether x is under way, with c.mu held.
func (c *conn) carries(x *exchange) bool {
	_, ok := c.streams[x]
	return ok || x == c.one
}

// watched is the context of one exchange after the other on an HTTP/1
// connection: an upstream.Watched.
type watched struct {
	context.Context
	cancel context.CancelFunc
	unset  func() bool // unwatch, made once

	mu sync.Mutex
	f  func() // told of the end; nil: nobody, or it was
}

func newWatched() *watched {
	w := new(watched)
	w.Context, w.cancel = context.WithCancel(context.Background())
	w.unset = w.unwatch
	return w
}

// Watch implements upstream.Watched.
func (w *watched) Watch(f func()) (stop func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil || w.Err() != nil {
		return context.AfterFunc(w.Context, f)
	}
	w.f = f
	return w.unset
}

func (w *watched) unwatch() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.f != nil
	w.f = nil
	return kept
}

// end is the context's CancelFunc.
func (w *watched) end() {
	w.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		go w.f()
		w.f = nil
	}
}

// judgement is an exchange that a condition must judge again, for a verdict
// without the connection's lock.
type judgement struct {
	c         *conn
	x         *exchange
	id        uint64 // of x's request, as x may carry another by then
	principal string
	turn      int // how many of the principal's come before it
	view      *policy.View
}

// rejudge asks the policy now in force about x, with c.mu held. Where a
// condition has a say, it returns what is to be judged.
func (x *exchange) rejudge() *judgement {
	view := x.c.policy()
	switch {
	case view == x.view:
		return nil
	case view.Asks(x.req.Authority):
		return &judgement{c: x.c, x: x, id: x.req.ID(), principal: x.c.principalID, view: view}
	}
	asked := x.req
	asked.Fields = x.asked
	if !x.stillAllowed(view.Decide(&asked)) {
		x.cutNow()
	}
	return nil
}

// stillAllowed reports that x may go on by d, and by the way it was dialled, with
// c.mu held.
func (x *exchange) stillAllowed(d policy.Decision) bool {
	return d.Verdict == policy.Allow && d.Egress.Keeps(x.decision.Egress)
}

// judge gives the verdict and cuts the exchange if it is still the same one.
// req is memory for a copy of what was asked.
func (j *judgement) judge(req *canon.Request) {
	j.c.mu.Lock()
	there, body := j.there(), []byte(nil)
	if there {
		asked := j.x.req
		asked.Fields = j.x.asked
		asked.CopyTo(req)
		body = j.x.judged
	}
	j.c.mu.Unlock()
	if !there {
		return
	}
	var d policy.Decision
	if body == nil {
		d = j.view.DecideBody(req, nil)
	} else {
		j.c.s.parse(func() { d = j.view.DecideBody(req, body) })
	}
	j.c.mu.Lock()
	defer j.c.mu.Unlock()
	if j.there() && !j.x.stillAllowed(d) {
		j.x.cutNow()
	}
}

// there reports that the request is still under way, with j.c.mu held.
func (j *judgement) there() bool { return j.c.carries(j.x) && j.x.req.ID() == j.id }

func (j *judgement) cut() {
	j.c.mu.Lock()
	defer j.c.mu.Unlock()
	if j.there() {
		j.x.cutNow()
	}
}

// cutNow ends x from another goroutine, with c.mu held.
func (x *exchange) cutNow() {
	x.cut.Store(true)
	x.cancel()
	x.body.Abort()
}

// rejudge asks about everything of c that is under way, and adds to slow what
// takes a condition.
func (c *conn) rejudge(slow []*judgement) []*judgement {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.active {
		if j := x.rejudge(); j != nil {
			slow = append(slow, j)
		}
	}
	return slow
}

// rejudgeAll judges on every processor for rejudgeWait, and cuts the rest.
func (s *Server) rejudgeAll(slow []*judgement) {
	inTurn(slow)
	until := s.now().Add(rejudgeWait)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(slow)) {
		workers.Go(func() {
			var req canon.Request
			for {
				i := int(next.Add(1)) - 1
				switch {
				case i >= len(slow):
					return
				case s.now().After(until):
					slow[i].cut()
				default:
					slow[i].judge(&req)
				}
			}
		})
	}
	workers.Wait()
}

// inTurn puts the first of each principal before anybody's second, and so on.
func inTurn(slow []*judgement) {
	seen := make(map[string]int)
	for _, j := range slow {
		j.turn = seen[j.principal]
		seen[j.principal]++
	}
	slices.SortStableFunc(slow, func(a, b *judgement) int { return cmp.Compare(a.turn, b.turn) })
}

// release lets go of what c held for its exchanges, when it has ended. An exchange
// that is still under way then was left by a panic: what waits for it is told, and
// nobody uses it again.
func (c *conn) release() {
	c.mu.Lock()
	left := c.one
	c.mu.Unlock()
	if left != nil {
		left.cancel()
	} else {
		c.endTurn()
	}
	c.leaveTally()
}

// abort ends c and everything on it.
func (c *conn) abort() {
	_ = rawOf(c.tcp).Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.active {
		x.cutNow()
	}
}

// cutReason is why another goroutine ended x.
func (x *exchange) cutReason() *refusal {
	why := &refusal{status: 403, reason: "policy_changed", detail: "the rule that allowed this is gone", close: true}
	if x.s.aborting.Load() {
		why = &refusal{status: 503, reason: "shutdown", detail: "the engine is stopping", close: true}
	}
	why.failed = x.recorded
	return why
}

// rawOf is the TCP connection below nc. Closing it neither writes nor waits, as
// a TLS connection's close_notify may.
func rawOf(nc net.Conn) net.Conn {
	for {
		below, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			if w, ok := nc.(*wire); ok {
				return w.Conn
			}
			return nc
		}
		nc = below.NetConn()
	}
}
