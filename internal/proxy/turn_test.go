package proxy

import (
	"strings"
	"testing"
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
