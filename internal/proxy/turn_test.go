package proxy

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoHasMuchUnderWayIsNotJudgedBeforeEverybodyElse(t *testing.T) {
	var slow []*judgement
	for i, principal := range strings.Fields("loud loud loud loud quiet loud quiet other") {
		slow = append(slow, &judgement{principal: principal, id: uint64(i)})
	}
	inTurn(slow)
	var order []string
	for i, j := range slow {
		if i > 0 && j.turn == slow[i-1].turn && j.id < slow[i-1].id {
			t.Errorf("%s came before what was there first", j.principal)
		}
		order = append(order, j.principal)
	}
	if got, want := strings.Join(order, " "), "loud quiet other loud quiet loud loud loud"; got != want {
		t.Errorf("judged %s, want %s", got, want)
	}
}

func TestFewRequestsOfAPrincipalAreJudgedByConditionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := tallies{of: make(map[string]*tally)}
		release := make(chan struct{})
		var running sync.WaitGroup
		judge := func(principal string, n int, judging *atomic.Int64) {
			y := all.join(principal, 1000)
			for range n {
				y.underway.Add(1)
				running.Go(func() {
					defer y.leave()
					y.inTurn(func() { judging.Add(1); <-release })
				})
			}
			all.leave(principal) // the connection ends and its streams do not
		}
		var loud, quiet atomic.Int64
		for range 10 {
			judge("loud", 5, &loud)
		}
		judge("quiet", 1, &quiet)
		synctest.Wait()
		if loud.Load() != maxJudged || quiet.Load() != 1 {
			t.Errorf("%d requests of the one and %d of the other", loud.Load(), quiet.Load())
		}
		time.Sleep(10 * controlWindow) // the bubble's clock
		judge("loud", 5, &loud)
		synctest.Wait()
		if loud.Load() != maxJudged || all.of["loud"].underway.Load() != 55 {
			t.Errorf("%d requests, %d under way, after a while", loud.Load(), all.of["loud"].underway.Load())
		}
		close(release)
		running.Wait()
		time.Sleep(2 * controlWindow)
		synctest.Wait()
		if loud.Load() != 55 || len(all.of) != 0 {
			t.Errorf("%d were judged; %d principals are remembered", loud.Load(), len(all.of))
		}
	})
}

func TestFewBodiesAreParsedAtOnceAndNobodyWaitsForAllOfAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{parsing: make(chan struct{}, maxParsed(100<<20, 64)), tallies: tallies{of: make(map[string]*tally)}}
		proceed := make(chan struct{})
		var running sync.WaitGroup
		var parsing, quiet atomic.Int64
		judge := func(principal string, n int, done *atomic.Int64) {
			y := s.tallies.join(principal, 1000)
			for range n {
				running.Go(func() {
					y.inTurn(func() {
						s.parse(func() { parsing.Add(1); <-proceed; parsing.Add(-1); done.Add(1) })
					})
				})
			}
			synctest.Wait()
		}
		var loud atomic.Int64
		for _, principal := range strings.Fields("one other third") {
			judge(principal, 50, &loud)
		}
		judge("quiet", 1, &quiet)
		for range 2 * maxJudged * 3 { // what is parsed, and what had come before
			if n := parsing.Load(); n != 2 {
				t.Errorf("%d bodies are parsed at once, want 2", n)
			}
			proceed <- struct{}{}
			synctest.Wait()
		}
		if quiet.Load() != 1 {
			t.Errorf("%d bodies of three went before one", loud.Load())
		}
		close(proceed)
		running.Wait()
		if loud.Load() != 150 {
			t.Errorf("%d were judged", loud.Load())
		}
	})
}

func TestAsManyBodiesAreParsedAsFitTheMemory(t *testing.T) {
	for _, row := range []struct {
		memory     int64
		processors int
		want       int
	}{{230 << 20, 16, 2}, {460 << 20, 16, 4}, {1 << 40, 16, 16}, {1 << 40, 1, 2}, {1 << 20, 8, 2}} {
		if got := maxParsed(row.memory, row.processors); got != row.want {
			t.Errorf("%d MiB, %d processors: %d, want %d", row.memory>>20, row.processors, got, row.want)
		}
	}
}

func TestJudgedBodiesOfManyPrincipalsLeaveRoomForAnother(t *testing.T) {
	b := newBudget[string](64, 128)
	for i, principal := range strings.Fields("a b c d e") {
		had := int64(0)
		for b.take(principal, 1) {
			had++
		}
		if had == 0 || i == 0 && had != 64 {
			t.Errorf("%s has %d", principal, had)
		}
	}
	if b.all > 128 {
		t.Errorf("all have %d, twice what one may have is 128", b.all)
	}
	for principal, n := range b.held {
		b.give(principal, n)
	}
	if b.all != 0 || len(b.held) != 0 {
		t.Errorf("%d are left over", b.all)
	}
}
