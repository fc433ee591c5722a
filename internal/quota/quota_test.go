package quota_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/quota"
)

// clock is a clock that moves when told to.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func newQuota(t *testing.T, most int) (*quota.Quota, *clock) {
	t.Helper()
	c := &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	q, err := quota.New(quota.Config{Now: c.Now, MaxCounters: most})
	if err != nil {
		t.Fatal(err)
	}
	return q, c
}

var bot = identity.Principal{Namespace: "support", ServiceAccount: "bot"}

func perMinute(scope string, n int) policy.Limit {
	return policy.Limit{Scope: scope, Rate: n, Per: time.Minute}
}

func atMost(scope string, n int64) policy.Limit { return policy.Limit{Scope: scope, MaxRequests: n} }

func TestTheBucketIsFullAtFirstAndFillsSteadily(t *testing.T) {
	q, c := newQuota(t, 0)
	limits := []policy.Limit{perMinute("p/r", 7)}
	for i := range 7 {
		if reason, _, ok := q.Take(bot, limits); !ok {
			t.Fatalf("request %d of a burst of 7: %s", i+1, reason)
		}
	}
	reason, wait, ok := q.Take(bot, limits)
	if ok || reason != quota.ReasonRateLimited || wait <= 8*time.Second || wait > 9*time.Second {
		t.Fatalf("request 8: %q, retry after %v, %v; want rate_limited for a seventh of a minute", reason, wait, ok)
	}
	c.pass(wait)
	if _, _, ok := q.Take(bot, limits); !ok {
		t.Fatal("refused after the time it was told to wait")
	}
	if _, _, ok := q.Take(bot, limits); ok {
		t.Fatal("two requests for one token")
	}
	c.pass(time.Hour)
	for i := range 8 {
		if _, _, ok := q.Take(bot, limits); ok != (i < 7) {
			t.Fatalf("request %d after an idle hour: %v; an idle bucket holds 7 and no more", i+1, ok)
		}
	}
}

func TestRequestsAreCountedForever(t *testing.T) {
	q, c := newQuota(t, 0)
	limits := []policy.Limit{atMost("p/r", 2)}
	q.Take(bot, limits)
	q.Take(bot, limits)
	c.pass(1000 * time.Hour)
	if reason, wait, ok := q.Take(bot, limits); ok || reason != quota.ReasonRequestCountExceeded || wait != 0 {
		t.Fatalf("%q, %v, %v", reason, wait, ok)
	}
}

func TestOneAgentsUseCostsThatAgentOnly(t *testing.T) {
	q, _ := newQuota(t, 0)
	limits := []policy.Limit{atMost("p/r", 1)}
	for _, p := range []identity.Principal{bot, {Namespace: "support", ServiceAccount: "other"}, {Namespace: "other", ServiceAccount: "bot"}, {AgentIdentity: "laptop"}} {
		if _, _, ok := q.Take(p, limits); !ok {
			t.Errorf("%+v pays for another", p)
		}
	}
}

func TestARefusalCountsAgainstNoLimit(t *testing.T) {
	q, _ := newQuota(t, 0)
	q.Take(bot, []policy.Limit{atMost("tight", 1)})
	for range 10 {
		if _, _, ok := q.Take(bot, []policy.Limit{perMinute("wide", 1), atMost("tight", 1)}); ok {
			t.Fatal("taken beyond the limit")
		}
	}
	if _, _, ok := q.Take(bot, []policy.Limit{perMinute("wide", 1)}); !ok {
		t.Fatal("a refused request took a token")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	q, c := newQuota(t, 10)
	for i := range 1000 {
		c.pass(2 * time.Minute) // each bucket is full again when the next agent comes
		p := identity.Principal{Namespace: "n", ServiceAccount: fmt.Sprint(i)}
		if _, _, ok := q.Take(p, []policy.Limit{perMinute("a", 5), perMinute("b", 5)}); !ok {
			t.Fatalf("agent %d refused", i)
		}
	}
	if q.Len() > 10 {
		t.Fatalf("%d counters, the limit is 10", q.Len())
	}
	q, c = newQuota(t, 3)
	for i := range 3 {
		q.Take(identity.Principal{AgentIdentity: fmt.Sprint(i)}, []policy.Limit{atMost("a", 5)})
	}
	c.pass(time.Hour)
	for range 2 {
		if reason, wait, ok := q.Take(identity.Principal{AgentIdentity: "one too many"}, []policy.Limit{atMost("a", 5)}); ok || reason != quota.ReasonRateLimited || wait == 0 {
			t.Fatalf("%q, %v, %v: a count was forgotten, or nobody is refused", reason, wait, ok)
		}
	}
}

func TestASweepWithinOneRequestLosesNothing(t *testing.T) {
	q, c := newQuota(t, 1)
	c.pass(time.Hour)
	if _, _, ok := q.Take(bot, []policy.Limit{perMinute("a", 1), perMinute("b", 1)}); !ok {
		t.Fatal("refused")
	}
	if _, _, ok := q.Take(bot, []policy.Limit{perMinute("a", 1)}); ok {
		t.Fatal("the first limit was not counted")
	}
}

func TestAClockThatGoesBackRefusesForOneBucketAtMost(t *testing.T) {
	q, c := newQuota(t, 0)
	limits := []policy.Limit{perMinute("a", 1)}
	q.Take(bot, limits)
	c.pass(-time.Hour)
	if _, wait, ok := q.Take(bot, limits); ok || wait > time.Minute {
		t.Fatalf("%v, %v", wait, ok)
	}
}

func TestPromise01WithoutWhatItNeedsItRefuses(t *testing.T) {
	if _, err := quota.New(quota.Config{}); err == nil {
		t.Error("a quota without a clock")
	}
	var q *quota.Quota
	if _, _, ok := q.Take(bot, []policy.Limit{atMost("a", 1)}); ok {
		t.Error("a nil Quota let a limited request through")
	}
	if _, _, ok := q.Take(bot, nil); !ok {
		t.Error("a nil Quota refused a request without limits")
	}
}

func TestParallelRequestsDoNotExceedTheLimit(t *testing.T) {
	q, _ := newQuota(t, 0)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, _, ok := q.Take(bot, []policy.Limit{atMost("a", 50), perMinute("b", 60)}); ok {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != 50 {
		t.Fatalf("%d requests, the limit is 50", taken.Load())
	}
}

func TestTakeDoesNotAllocate(t *testing.T) {
	q, _ := newQuota(t, 0)
	limits := []policy.Limit{perMinute("a", 1_000_000), atMost("b", 1<<40)}
	q.Take(bot, limits)
	if n := testing.AllocsPerRun(100, func() { q.Take(bot, limits); q.Take(bot, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTake(b *testing.B) {
	q, err := quota.New(quota.Config{Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	limits := []policy.Limit{perMinute("a", 1_000_000), atMost("b", 1<<40)}
	b.ReportAllocs()
	for b.Loop() {
		q.Take(bot, limits)
	}
}
