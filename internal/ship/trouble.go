package ship

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// pace says when what failed is tried again.
type pace struct {
	first, most time.Duration
}

// Between two tries lies half a second at first, then twice as long each time,
// and half a minute in the end; a receiver that is told to be busy may ask for
// up to five minutes.
const (
	firstRetry = 500 * time.Millisecond
	mostRetry  = 30 * time.Second
	mostAsked  = 5 * time.Minute
)

// wait returns how long to wait after the n-th failure in a row, from 1, with
// err. A random half keeps engines that failed together from coming back
// together.
func (p pace) wait(n int, err error) time.Duration {
	d := p.first << min(n-1, 30)
	if d <= 0 || d > p.most {
		d = p.most
	}
	d = d/2 + rand.N(d/2+1)
	var r *refusal
	if errors.As(err, &r) {
		d = max(d, min(r.after, mostAsked))
	}
	return d
}

// pause waits for d. It ends early when hurry is closed, and with false when
// ctx ends.
func pause(ctx context.Context, d time.Duration, hurry <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-hurry:
	case <-t.C:
	}
	return ctx.Err() == nil
}

// trouble counts tries and says when they begin to fail and when they work
// again, not each time.
type trouble struct {
	logger     *slog.Logger
	bad, again string // what it says
	target     *Target

	mu        sync.Mutex
	attempts  uint64
	failures  uint64
	last      string // "" when the last try worked
	permanent bool   // said that trying again does not help
}

func (t *trouble) worked(attrs ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
	if t.last != "" {
		t.logger.Info(t.again, attrs...)
	}
	t.last, t.permanent = "", false
}

func (t *trouble) failed(err error, attrs ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
	t.failures++
	first := t.last == ""
	t.last = t.target.scrub(err.Error())
	var r *refusal
	switch {
	case errors.As(err, &r) && r.permanent:
		if !t.permanent {
			t.permanent = true
			t.logger.Error(t.bad+": a configuration error, here or there", append(attrs, "err", t.last)...)
		}
	case first:
		t.logger.Warn(t.bad, append(attrs, "err", t.last)...)
	}
}

func (t *trouble) counts() (attempts, failures uint64, last string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.attempts, t.failures, t.last
}
