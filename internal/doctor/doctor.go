//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Config says where the engine is expected, and what is known of it.
type Config struct {
	Transparent, DNS uint16 // its ports on loopback; required
	Forward, Admin   uint16 // likewise, and administration on the pod's addresses; 0: there is none

	// EngineUID is the engine's user; 0: who listens on the transparent port.
	EngineUID uint32
	// Alone says that the namespace is the agent's alone, as exec makes it: no
	// user in it is let out.
	Alone bool
	// Environ is the agent's environment, as os.Environ has it.
	Environ []string
	// Policies are policy files that the agent must not be able to write.
	Policies []string
	// Advisory says that proxy variables are all there is, by choice: the
	// program must find the forward proxy by them.
	Advisory bool
	// Host is a host that the policy allows on port 443 and inspects: the bundle
	// must verify the engine's certificate for it. Nothing is asked of it. "": none.
	Host string
	// Patience bounds each wait for an answer; 0 is 3 seconds.
	Patience time.Duration
	// PID is the agent's process, whose files, environment and privileges are
	// looked at where this one is another container's; 0: this one's own.
	PID int
	// Root is where /proc, /etc, /var and what else is looked at are; "" is /.
	Root string
}

// Finding is what came of one check.
type Finding struct {
	ID    string `json:"id"`    // the row that it belongs to: E1 … E5, P1, P2
	Check string `json:"check"` // what was tried
	Held  bool   `json:"held"`
	Found string `json:"found"`         // what came of it
	Fix   string `json:"fix,omitempty"` // what to change, where it is not held
}

// Report is all findings, in the order of the checks.
type Report struct {
	Findings []Finding `json:"findings"`
	Held     int       `json:"held"`
	Open     int       `json:"open"`
}

// outcome is what a check found.
type outcome struct {
	held  bool
	found string
}

func held(format string, args ...any) outcome { return outcome{true, fmt.Sprintf(format, args...)} }

func open(format string, args ...any) outcome { return outcome{false, fmt.Sprintf(format, args...)} }

// worst is the first of them that is not held, or the first.
func worst(all ...outcome) outcome {
	for _, o := range all {
		if !o.held {
			return o
		}
	}
	return all[0]
}

// check is one row of the report.
type check struct {
	id, what, fix string
	run           func(context.Context) outcome
}

// patient is what is looked at.
type patient struct {
	Config
}

// Run runs every check. It fails where nothing could be found out: without
// ports, or without /proc.
func Run(ctx context.Context, c Config) (Report, error) {
	if c.Transparent == 0 || c.DNS == 0 {
		return Report{}, errors.New("doctor: the engine's transparent port and its DNS port are needed")
	}
	if c.Patience == 0 {
		c.Patience = 3 * time.Second
	}
	if c.Root == "" {
		c.Root = "/"
	}
	p := &patient{c}
	if _, err := p.status(); err != nil {
		return Report{}, fmt.Errorf("doctor: %w; it needs /proc", err)
	}
	if p.EngineUID == 0 && !p.Alone {
		p.EngineUID, _ = p.listener(p.Transparent)
	}
	// What a counter of dropped packets is evidence for runs alone.
	first, rest := append(p.messageChecks(), p.aroundChecks()...), append(append(p.networkChecks(), p.privilegeChecks()...), p.fileChecks()...)
	findings := make([]Finding, len(first)+len(rest))
	for i, ch := range first {
		findings[i] = ch.find(ctx)
	}
	var running sync.WaitGroup
	for i, ch := range rest {
		running.Go(func() { findings[len(first)+i] = ch.find(ctx) })
	}
	running.Wait()
	r := Report{}
	for _, id := range []string{"E1", "E2", "E3", "E4", "E5", "P1", "P2"} {
		for _, f := range findings {
			if f.ID == id {
				r.Findings = append(r.Findings, f)
			}
		}
	}
	for _, f := range r.Findings {
		if f.Held {
			r.Held++
		} else {
			r.Open++
		}
	}
	return r, ctx.Err()
}

func (ch check) find(ctx context.Context) Finding {
	o := ch.run(ctx)
	f := Finding{ID: ch.id, Check: ch.what, Held: o.held, Found: o.found}
	if !o.held {
		f.Fix = ch.fix
	}
	return f
}

// Addresses that nobody has (RFC 5737, RFC 3849).
func nobody4() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }
func nobody6() netip.Addr { return netip.MustParseAddr("2001:db8::1") }

// Enforced reports whether an agent's connections end at the engine, whatever
// the agent does: every row of E1 is held.
func (r Report) Enforced() bool {
	for _, f := range r.Findings {
		if f.ID == "E1" && !f.Held {
			return false
		}
	}
	return true
}

// Text is the report for a terminal: a line for each check, and what to change
// below one that is open.
func (r Report) Text() string {
	var b strings.Builder
	for _, f := range r.Findings {
		word := "held"
		if !f.Held {
			word = "OPEN"
		}
		fmt.Fprintf(&b, "%s  %s  %s: %s\n", word, f.ID, f.Check, f.Found)
		if f.Fix != "" {
			fmt.Fprintf(&b, "          change: %s\n", f.Fix)
		}
	}
	fmt.Fprintf(&b, "%d held, %d open\n", r.Held, r.Open)
	return b.String()
}
