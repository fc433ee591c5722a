package proxy

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestAPanicBesideAConnectionIsAnError(t *testing.T) {
	var logged strings.Builder
	s := &Server{cfg: Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}}
	if err := s.guarded(func() error { panic("a defect") }); err == nil || !strings.Contains(err.Error(), "a defect") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(logged.String(), "a defect") {
		t.Errorf("logged %q", logged.String())
	}
	if err := s.guarded(func() error { return nil }); err != nil {
		t.Errorf("without a panic: %v", err)
	}
}

func TestACutAtTheEndOfAnExchangeDoesNotReachTheNext(t *testing.T) {
	s := &Server{cfg: Config{Policy: new(PolicySource)}, now: time.Now}
	c := &conn{s: s}
	x := newExchange(s)
	x.c, x.alone, x.view = c, true, c.policy()
	c.begin(context.Background(), x)
	x.cancel()
	c.end(x)
	c.begin(context.Background(), x)
	defer c.release()
	defer c.end(x)
	if err := x.ctx.Err(); err != nil {
		t.Errorf("the next exchange begins with %v", err)
	}
}

// net/http forgets a connection without waiting for its streams, of which the last
// may only begin then.
func TestAStreamMayBeginWhenItsConnectionIsForgotten(t *testing.T) {
	s := &Server{limits: Limits{}.withDefaults(), tallies: tallies{of: map[string]*tally{}}}
	c := &conn{s: s, principalID: "agent", tally: s.tallies.join("agent", 1000)}
	began := make(chan *refusal)
	go func() {
		x := newExchange(s)
		x.c = c
		began <- x.enter()
	}()
	c.release()
	if why := <-began; why != nil {
		t.Errorf("refused: %s", why.reason)
	}
	if len(s.tallies.of) != 0 {
		t.Error("the principal is still counted")
	}
}
