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
