package audit

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

func refusing(t *testing.T, limits RefusalLimits) (*Log, *clock, string) {
	t.Helper()
	wall, file := newClock(), logFile(t)
	return open(t, Config{File: file, Now: wall.now, Refusals: limits}), wall, file
}

func TestL03AFloodIsCountedAndTheFirstAreWritten(t *testing.T) {
	l, wall, file := refusing(t, RefusalLimits{First: 3})
	for range 10 {
		wall.add(time.Millisecond)
		check(t, l.Refuse(denial(agent("bot"), "bad_hello")))
	}
	for range 2 {
		check(t, l.Refuse(denial(agent("bot"), "not_in_allowlist")))
		check(t, l.Refuse(denial(agent("other"), "bad_hello")))
	}
	l.tick()
	for range 4 { // a new window
		check(t, l.Refuse(denial(agent("bot"), "bad_hello")))
	}
	closeLog(t, l)
	verified(t, file)
	type key struct{ agent, reason string }
	single, counts := map[key]int{}, map[key]int64{}
	for _, e := range entries(t, file) {
		k := key{e.AgentIdentity, e.Reason}
		switch {
		case e.Event != "egress_denied":
		case e.Count > 0:
			counts[k] += e.Count
			if e.Count == 7 && (e.First != "2026-05-15T09:42:11.127Z" || e.Last != "2026-05-15T09:42:11.133Z" || e.Namespace != "support") {
				t.Errorf("the count has no times: %s", e.Raw)
			}
		default:
			single[k]++
		}
	}
	bot, bot2, other := key{"support/bot", "bad_hello"}, key{"support/bot", "not_in_allowlist"}, key{"support/other", "bad_hello"}
	if single[bot] != 6 || counts[bot] != 8 || single[bot2] != 2 || single[other] != 2 || len(counts) != 1 {
		t.Fatalf("single %v, counted %v", single, counts)
	}
}

func TestL03OnlyTheAgentThatFloodsIsRefused(t *testing.T) {
	l, wall, file := refusing(t, RefusalLimits{First: 2, Rate: 10, Burst: 5})
	flood := &Agent{Namespace: "support", ServiceAccount: "bot", Claimed: "x", Pod: "p"}
	over := 0
	for i := range 100 {
		flood.Claimed = fmt.Sprint(i) // a label buys nothing
		if err := l.Refuse(denial(flood, "bad_hello")); errors.Is(err, ErrBudget) {
			over++
		} else {
			check(t, err)
		}
	}
	if over != 95 {
		t.Fatalf("%d of 100 over a budget of 5", over)
	}
	if err := noReceipt(t, l, 1); !errors.Is(err, ErrBudget) { // decision is support/bot's too
		t.Fatal(err)
	}
	r := decision(2)
	r.Agent = agent("other")
	if rc, err := l.Decide(r); err != nil || !rc.Covers(2) {
		t.Fatal("another agent is refused too", err)
	}
	if l.Err() != nil {
		t.Fatal("a budget is no fault of the log")
	}
	wall.add(-time.Hour)
	if err := noReceipt(t, l, 1); !errors.Is(err, ErrBudget) { // a clock set back buys nothing
		t.Fatal(err)
	}
	wall.add(100 * time.Millisecond)
	mustDecide(t, l, 3)
	closeLog(t, l)
	verified(t, file)
	total := int64(0)
	for _, e := range entries(t, file) {
		if e.Reason == "bad_hello" {
			total += max(e.Count, 1)
		}
	}
	if total != 100 {
		t.Fatalf("%d refusals in the log, want 100", total)
	}
}

func TestL03AgentsAndReasonsBeyondTheLimitShareACount(t *testing.T) {
	l, wall, file := refusing(t, RefusalLimits{First: 1, Agents: 2, Burst: 1000, Rate: 1000})
	for i := range 10 {
		for range 2 {
			check(t, l.Refuse(denial(agent(fmt.Sprint(i)), "bad_hello")))
		}
	}
	for i := range 200 {
		check(t, l.Refuse(denial(&Agent{Namespace: "support", ServiceAccount: "0"}, fmt.Sprint("reason", i))))
		check(t, l.Refuse(denial(nil, "bad_hello")))
	}
	if n := len(l.refusals.agents); n != 2 {
		t.Fatalf("%d agents", n)
	}
	if n := len(l.refusals.agents[principalOf(&Record{Agent: agent("0")})].reasons); n > maxReasons+1 {
		t.Fatalf("%d reasons", n)
	}
	for range 3 { // what is idle is forgotten
		wall.add(time.Minute)
		l.tick()
	}
	if n := len(l.refusals.agents); n != 0 {
		t.Fatalf("%d agents after the flood", n)
	}
	closeLog(t, l)
	verified(t, file)
	total := int64(0)
	for _, e := range entries(t, file) {
		if e.Event == "egress_denied" {
			total += max(e.Count, 1)
		}
	}
	if total != 20+400 {
		t.Fatalf("%d refusals in the log, want 420", total)
	}
}

func TestL03TheOthersHaveABudgetToo(t *testing.T) {
	l, _, _ := refusing(t, RefusalLimits{Agents: 1, Burst: 1, Rate: 1})
	check(t, l.Refuse(denial(agent("a"), "x")))
	if l.refusals.exhausted(&Record{Agent: agent("b")}, l.now()) {
		t.Fatal("nobody else was refused yet")
	}
	check(t, l.Refuse(denial(agent("b"), "x")))
	if err := l.Refuse(denial(agent("c"), "x")); !errors.Is(err, ErrBudget) {
		t.Fatal(err)
	}
	r := decision(1)
	r.Agent = agent("d")
	if _, err := l.Decide(r); !errors.Is(err, ErrBudget) {
		t.Fatal(err)
	}
}

// Who is nobody is refused by address: one that floods keeps no other from being
// asked whose it is, and however many there are, agents are told apart.
func TestL03OnlyTheAddressThatFloodsIsRefused(t *testing.T) {
	l, _, file := refusing(t, RefusalLimits{Agents: 4, Burst: 5, Rate: 1})
	refuse := func(last byte) error {
		r := denial(&Agent{}, "unknown_principal")
		r.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 1234)
		return l.Refuse(r)
	}
	for range 5 {
		check(t, refuse(1))
	}
	if err := refuse(1); !errors.Is(err, ErrBudget) {
		t.Errorf("the sixth of an address: %v", err)
	}
	for last := byte(2); last < 7; last++ { // the third and those after it have one budget
		check(t, refuse(last))
	}
	for _, name := range []string{"a", "b"} {
		for range 5 {
			check(t, l.Refuse(denial(agent(name), "not_in_allowlist")))
		}
	}
	l.tick()
	closeLog(t, l)
	verified(t, file)
}

func TestL03CountsOutliveAFullDisk(t *testing.T) {
	l, fs, _, file := faulty(t, Written)
	l.refusals.limits.First = 1
	bad := denial(&Agent{Identity: "laptop"}, "bad_hello")
	check(t, l.Refuse(bad))
	check(t, l.Refuse(bad))
	fs.set(func(f *faultFS) {
		f.write = func([]byte) (int, error) { return 0, errNoSpace }
	})
	l.tick() // the log is found full, the count stays
	if err := l.Refuse(denial(agent("bot"), "x")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	l.tick()
	if err := l.Refuse(bad); !errors.Is(err, syscall.ENOSPC) { // a new window: would be written one by one again
		t.Fatal(err)
	}
	fs.set(func(f *faultFS) { f.write = nil })
	closeLog(t, l)
	verified(t, file)
	total := map[string]int64{}
	for _, e := range entries(t, file) {
		total[e.Reason] += max(e.Count, 1)
	}
	if total["bad_hello"] != 3 || total["x"] != 1 {
		t.Fatalf("%v", total)
	}
}
