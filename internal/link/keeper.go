package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
)

// keeper decides what of control's word is put in force, and when:
//
//   - A policy whose every host the authority at hand can sign for is live at
//     once. If it has fewer hosts, a narrower authority follows.
//   - One that gains a host waits for the authority that permits it, so that no
//     request of the new host fails, but no longer than Patience: it may deny
//     something as well.
//   - A policy without a host has no authority.
//   - An authority is renewed at two thirds of its life. What cannot be had, does
//     not check or does not compile changes nothing: the last good one stays.
//
// One goroutine runs it. The fields below events are that goroutine's.
type keeper struct {
	engine  Engine
	options ClientOptions
	sign    func(ctx context.Context, a *attempt, revision string) (signed, error)
	inbox   inbox
	results chan result

	live    *Update
	waiting *waiting
	held    *signed // nil: no authority
	attempt *attempt
	asking  context.CancelFunc // nil: no request is under way
	askedBy time.Time          // no request before this
	failed  int                // requests in a row

	awaySince time.Time // zero: control is there
	awayWhy   error
}

// waiting is a policy that compiled and needs an authority first.
type waiting struct {
	Update
	live  func()
	until time.Time
}

// signed is an authority and what it was asked for with.
type signed struct {
	template  Template
	authority *certs.Authority
	renewAt   time.Time
}

type result struct {
	signed
	attempt *attempt
	err     error
}

// event is what the stream has to tell: an update, or why there is no stream.
type event struct {
	update *Update
	away   error
}

// inbox holds the latest event that was not looked at: a policy that was
// replaced before it was looked at is nobody's any more. An update is not lost
// to the news that the stream broke after it.
type inbox struct {
	ready chan struct{} // has one element if there is something

	mu     sync.Mutex
	update *Update
	away   error
	there  bool // the latest news is that control is there
}

func newKeeper(engine Engine, o ClientOptions, sign func(context.Context, *attempt, string) (signed, error)) *keeper {
	return &keeper{engine: engine, options: o, sign: sign, inbox: inbox{ready: make(chan struct{}, 1)}, results: make(chan result)}
}

// tell may be called from any goroutine and does not block.
func (k *keeper) tell(e event) {
	b := &k.inbox
	b.mu.Lock()
	if e.update != nil {
		b.update = e.update
	}
	b.away, b.there = e.away, e.away == nil
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) {
	defer func() {
		if k.asking != nil {
			k.asking()
			<-k.results
		}
	}()
	for {
		k.ask(ctx)
		timer := time.NewTimer(k.pause(time.Now()))
		select {
		case <-k.inbox.ready:
			k.look()
		case r := <-k.results:
			k.answered(r)
		case <-timer.C:
			k.tick(time.Now())
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// look takes what is in the inbox.
func (k *keeper) look() {
	b := &k.inbox
	b.mu.Lock()
	update, away, there := b.update, b.away, b.there
	b.update = nil
	b.mu.Unlock()
	switch {
	case there:
		k.awaySince, k.awayWhy = time.Time{}, nil
		k.engine.Report(PartControl, false, nil)
	case away != nil:
		if k.awayWhy = away; k.awaySince.IsZero() {
			k.awaySince = time.Now()
		}
		k.reportAway(time.Now())
	}
	if update != nil {
		k.take(*update)
	}
}

// reportAway reports that control is away: at once to an engine that never heard
// of it, else once it is away for longer than it takes to restart.
func (k *keeper) reportAway(now time.Time) {
	if k.awayWhy != nil && (k.live == nil || now.Sub(k.awaySince) >= k.options.Away) {
		k.engine.Report(PartControl, false, fmt.Errorf("away since %s, what it said last stays in force: %w", k.awaySince.UTC().Format(time.RFC3339), k.awayWhy))
	}
}

// take puts an update in force, or lets it wait for its authority.
func (k *keeper) take(u Update) {
	switch {
	case k.waiting != nil && k.waiting.equal(u):
		return
	case k.waiting == nil && k.live != nil && k.live.equal(u):
		k.engine.Report(PartPolicy, false, nil) // what was broken in between is gone
		return
	}
	err := u.check(k.options.Gateway)
	var live func()
	if err == nil {
		live, err = k.engine.Compile(u)
	}
	if err != nil {
		k.engine.Report(PartPolicy, false, fmt.Errorf("revision %q from control: %w", clip(u.Revision, maxRevision), err))
		return
	}
	until := time.Now().Add(k.options.Patience)
	if k.waiting != nil && k.waiting.until.Before(until) {
		until = k.waiting.until // changes that come fast do not put each other off
	}
	k.waiting = &waiting{Update: u, live: live, until: until}
	k.failed, k.askedBy = 0, time.Time{}
	if k.attempt != nil && !k.attempt.template.equal(u.Template) {
		k.attempt = nil
		if k.asking != nil {
			k.asking()
		}
	}
	if u.Template.None() || k.held != nil && k.held.template.covers(u.Template) {
		k.goLive()
	}
}

// goLive puts what waits in force.
func (k *keeper) goLive() {
	w := k.waiting
	w.live()
	k.live, k.waiting = &w.Update, nil
	switch {
	case w.Template.None():
		k.held = nil
		k.engine.Authority(nil)
		k.engine.Report(PartCA, false, nil)
	case k.held == nil || !k.held.template.covers(w.Template):
		k.engine.Report(PartCA, false, errors.New("there is none yet for every host of the policy; it is asked for"))
	}
	k.engine.Report(PartPolicy, true, nil)
}

// wanted is the policy that the authority is to be for, nil for none.
func (k *keeper) wanted() *Policy {
	switch {
	case k.waiting != nil:
		return &k.waiting.Policy
	case k.live != nil:
		return &k.live.Policy
	default:
		return nil
	}
}

// due is when an authority is to be asked for; false: not at all.
func (k *keeper) due() (time.Time, bool) {
	p := k.wanted()
	if k.asking != nil || p == nil || p.Template.None() {
		return time.Time{}, false
	}
	at := k.askedBy
	if k.held != nil && k.held.template.equal(p.Template) && k.held.renewAt.After(at) {
		at = k.held.renewAt
	}
	return at, true
}

// ask begins a request if one is due.
func (k *keeper) ask(ctx context.Context) {
	at, ok := k.due()
	if !ok || time.Now().Before(at) {
		return
	}
	p := k.wanted()
	if k.attempt != nil && time.Since(k.attempt.made) > attemptLife {
		k.attempt = nil
	}
	if k.attempt == nil {
		var err error
		if k.attempt, err = newAttempt(p.Template); err != nil {
			k.refused(err)
			return
		}
	}
	ctx, k.asking = context.WithCancel(ctx)
	a, revision := k.attempt, p.Revision
	go func() {
		s, err := k.sign(ctx, a, revision)
		k.results <- result{s, a, err}
	}()
}

// answered takes the end of a request.
func (k *keeper) answered(r result) {
	k.asking()
	k.asking = nil
	if r.attempt != k.attempt {
		return // the policy has moved on; what it needs now is asked for next
	}
	if r.err != nil {
		k.refused(r.err)
		return
	}
	// Spread over a twentieth: pods that start together do not renew together.
	if left := time.Until(r.renewAt); left > 0 {
		r.renewAt = r.renewAt.Add(-rand.N(left/20 + 1))
	}
	k.attempt, k.failed, k.askedBy = nil, 0, time.Time{}
	k.held = &r.signed
	k.engine.Authority(r.authority)
	if k.waiting != nil {
		k.goLive()
	}
	k.engine.Report(PartCA, true, nil)
}

// refused notes a request that brought nothing.
func (k *keeper) refused(err error) {
	k.askedBy = time.Now().Add(retry(k.failed, retrySign))
	k.failed++
	if k.held == nil {
		err = fmt.Errorf("none yet: %w", err)
	} else {
		err = fmt.Errorf("the one in force signs until %s: %w", k.held.authority.NotAfter().UTC().Format(time.RFC3339), err)
	}
	k.engine.Report(PartCA, false, err)
}

// tick does what time alone brings about.
func (k *keeper) tick(now time.Time) {
	if k.waiting != nil && !now.Before(k.waiting.until) {
		k.goLive()
	}
	k.reportAway(now)
}

// pause is how long nothing is due: at most a minute, since timers do not see a
// clock that was set.
func (k *keeper) pause(now time.Time) time.Duration {
	d := time.Minute
	sooner := func(at time.Time) { d = min(d, max(0, at.Sub(now))) }
	if at, ok := k.due(); ok {
		sooner(at)
	}
	if k.waiting != nil {
		sooner(k.waiting.until)
	}
	if !k.awaySince.IsZero() && now.Sub(k.awaySince) < k.options.Away {
		sooner(k.awaySince.Add(k.options.Away))
	}
	return d
}

func (u Update) equal(v Update) bool { return u.Pod == v.Pod && u.Policy.equal(v.Policy) }

// covers reports whether an authority for t can sign for all that u permits.
func (t Template) covers(u Template) bool {
	switch {
	case t.Unconstrained:
		return true
	case u.Unconstrained:
		return false
	default:
		return t.equal(u) || certs.ConstraintsCover(t.NameConstraints, u.NameConstraints)
	}
}

// clip keeps what came from outside short.
func clip(s string, most int) string {
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
