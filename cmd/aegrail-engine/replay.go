package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

func policyReplayCommand(w *world) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "replay --policy FILE LOG…",
		Short: "Say what a policy would have decided on a log",
		Long: "Ask the policy about every decision in the logs and print where it differs; exits 1 if it does\n" +
			"anywhere. The log has no headers, query values or bodies: a decision that depends on them is\n" +
			"counted and not compared.",
		Args: takes(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			rules, err := mustLoad(c, file)
			if err != nil {
				return err
			}
			r := replay{set: rules.set, differ: map[difference]*tallied{}}
			if err := readLogs(args, r.add); err != nil {
				return err
			}
			return r.print(w.stdout)
		},
	}
	c.Flags().Var(&onePolicy{&file}, "policy", "policy `FILE`")
	return c
}

// replay compares what a log says with what a policy says.
type replay struct {
	set                     *policy.Set
	same, unknown, noPolicy int64 // decisions: alike; depending on what the log has not; not a policy's
	differ                  map[difference]*tallied
}

type difference struct{ was, now, why, agent, request string }

type tallied struct {
	count int64
	first uint64
}

func (r *replay) add(l logged) error {
	switch {
	case !l.isDecision():
		return nil
	case !l.allowed() && !policyReason(l.Reason):
		r.noPolicy += l.times()
		return nil
	case l.url() == "":
		r.unknown += l.times()
		return nil
	}
	method := l.Method
	if l.isTunnel() {
		method = "CONNECT"
	}
	a, err := question{agent: l.principal(), method: method, url: l.url()}.ask(r.set)
	if err != nil {
		return fmt.Errorf("record %d: %w", l.Seq, err)
	}
	was, now := l.allowed() && !l.Observed, a.allows()
	switch {
	case a.NeedBody || dependsOnContent(string(a.Reason)) || dependsOnContent(l.Reason):
		r.unknown += l.times()
	case was == now:
		r.same += l.times()
	default:
		r.differs(difference{verdictWord(was), verdictWord(now), because(a), l.principal().ID(), method + " " + l.url()}, l)
	}
	return nil
}

// mostListed is how many differences are told apart by their request: an agent has
// as many URLs as it likes. Those of the others that have verdicts, reason and agent
// in common are one.
const mostListed = 10_000

func (r *replay) differs(d difference, l logged) {
	if r.differ[d] == nil && len(r.differ) >= mostListed {
		d.request = "other requests"
	}
	if r.differ[d] == nil {
		r.differ[d] = &tallied{first: l.Seq}
	}
	r.differ[d].count += l.times()
}

// because is the reason and the rule of an answer.
func because(a answer) string {
	switch {
	case a.Rule != "" && a.Reason != "":
		return string(a.Reason) + ", rule " + a.Rule
	case a.Rule != "":
		return "rule " + a.Rule
	default:
		return string(a.Reason)
	}
}

func verdictWord(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

func (r *replay) print(w io.Writer) error {
	keys := slices.SortedFunc(maps.Keys(r.differ), func(a, b difference) int {
		return cmp.Compare(r.differ[a].first, r.differ[b].first)
	})
	var changed int64
	for _, d := range keys {
		t := r.differ[d]
		changed += t.count
		fmt.Fprintf(w, "%s -> %s  %s", d.was, d.now, d.request)
		if d.why != "" {
			fmt.Fprintf(w, "  (%s)", d.why)
		}
		fmt.Fprintf(w, "  %s, first in record %d, agent %s\n", times(t.count), t.first, d.agent)
	}
	fmt.Fprintf(w, "%s alike, %d differ", plural(int(r.same), "decision"), changed)
	if r.unknown > 0 {
		fmt.Fprintf(w, ", %d depend on what the log does not keep", r.unknown)
	}
	if r.noPolicy > 0 {
		fmt.Fprintf(w, ", %d were refused before policy", r.noPolicy)
	}
	fmt.Fprintln(w)
	if changed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// policyReason reports a denial that a policy made. What was refused for its
// form, a limit or the log is not for another policy to decide.
func policyReason(reason string) bool {
	switch policy.Reason(reason) {
	case policy.NoPolicyForAgent, policy.NotInAllowlist, policy.SchemeNotAllowed, policy.PortNotAllowed, policy.PathNotAllowed,
		policy.MethodNotAllowed, policy.WebSocketNotAllowed, policy.ConditionNotMet, policy.DeniedByRule, policy.TunnelNotAllowed,
		policy.AmbiguousPath, policy.MethodOverride, policy.BadBody, policy.BodyTooLarge, policy.UpgradeNotAllowed:
		return true
	}
	return false
}

// dependsOnContent reports a reason that lies in headers, query values or the
// body, which the log does not keep.
func dependsOnContent(reason string) bool {
	switch policy.Reason(reason) {
	case policy.ConditionNotMet, policy.BadBody, policy.BodyTooLarge, policy.WebSocketNotAllowed, policy.MethodOverride, policy.UpgradeNotAllowed:
		return true
	}
	return false
}
