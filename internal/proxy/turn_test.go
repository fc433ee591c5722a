package proxy

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

func TestFewBodiesOfAPrincipalAreParsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := bodyBudget{limit: 100, held: make(map[string]*bodies)}
		release := make(chan struct{})
		var all sync.WaitGroup
		parse := func(principal string, n int, parsing *atomic.Int64) {
			for range n {
				x := &exchange{bodies: budget.take(principal, 1)}
				all.Go(func() {
					x.inTurn(func() { parsing.Add(1); <-release })
					budget.give(principal, 1)
				})
			}
		}
		var loud, quiet atomic.Int64
		parse("loud", 50, &loud)
		parse("quiet", 1, &quiet)
		synctest.Wait()
		if loud.Load() != maxParsed || quiet.Load() != 1 {
			t.Errorf("%d bodies of the one and %d of the other", loud.Load(), quiet.Load())
		}
		if budget.take("loud", 51) != nil || budget.held["loud"].bytes != 50 {
			t.Errorf("the budget is %d", budget.held["loud"].bytes)
		}
		close(release)
		all.Wait()
		if loud.Load() != 50 || len(budget.held) != 0 {
			t.Errorf("%d were parsed; %d principals hold some", loud.Load(), len(budget.held))
		}
	})
}
