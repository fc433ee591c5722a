package resolver

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
)

const (
	// window is how often the same refusal is recorded; in between it is counted.
	window = 10 * time.Second

	// maxRepeats is how many refusals are told apart in that time. Those beyond
	// are recorded each time, until their agent's budget ends.
	maxRepeats = 1024
)

// refusal is a query that was not answered as it was meant.
type refusal struct {
	client   netip.AddrPort
	name     string // as judged, or as it stood in the question where that is not a host's
	reason   string
	detail   string
	revision string

	count       int64 // how many it stands for; 0: one
	first, last time.Time
}

// refuse records no, at once or as one more of what was recorded just now. An
// error is the log's.
func (r *Resolver) refuse(no refusal) error { return r.repeat.add(no) }

// record writes no to the log and lets it be counted.
func (r *Resolver) record(no *refusal) error {
	rec := audit.Record{
		Event: audit.EgressDenied, Phase: audit.PhaseDecision, Agent: r.agent(), Client: no.client, Kind: "dns",
		Host: no.name, Reason: no.reason, Detail: no.detail, PolicyRevision: no.revision,
		Count: no.count, First: no.first, Last: no.last,
	}
	err := r.cfg.Log.Refuse(&rec)
	if r.cfg.Observe != nil {
		r.cfg.Observe(&rec)
	}
	return err
}

// repeats holds back what was recorded just now and comes again: programs ask
// for the same names over and over, those of a search list with every lookup.
type repeats struct {
	now   func() time.Time
	write func(*refusal) error

	mu     sync.Mutex
	recent map[repeatKey]*repeated // guarded by mu; bounded by maxRepeats
	timer  *time.Timer             // guarded by mu; ends the window, while anything is in recent
	closed bool
}

type repeatKey struct{ name, reason, detail string }

// repeated is what was recorded once in this window, and how often it came since.
type repeated struct{ again refusal }

func (r *repeats) add(no refusal) error {
	key := repeatKey{no.name, no.reason, no.detail}
	r.mu.Lock()
	if known := r.recent[key]; known != nil {
		at := r.now()
		if known.again.count == 0 {
			known.again.first = at
		}
		known.again.last = at
		known.again.count++
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	if err := r.write(&no); err != nil {
		return err // the next one tries again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.recent) >= maxRepeats || r.closed || r.recent[key] != nil {
		return nil
	}
	if r.recent == nil {
		r.recent = map[repeatKey]*repeated{}
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(window, func() { _ = r.flush() }) // what is lost is a count of what has a record
	}
	r.recent[key] = &repeated{again: no}
	return nil
}

// flush ends the window: what came again is recorded with its count.
func (r *repeats) flush() error {
	r.mu.Lock()
	recent := r.recent
	r.recent, r.timer = nil, nil
	r.mu.Unlock()
	var failed error
	for _, known := range recent {
		if known.again.count > 0 {
			failed = errors.Join(failed, r.write(&known.again))
		}
	}
	if errors.Is(failed, audit.ErrBudget) {
		return nil // counted there
	}
	return failed
}

func (r *repeats) close() error {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	return r.flush()
}

// agent is who asks, as the log names it.
func (r *Resolver) agent() *audit.Agent {
	p := r.cfg.Agent()
	return &audit.Agent{
		Identity: p.ID(), Namespace: p.Namespace, ServiceAccount: p.ServiceAccount, Pod: p.Pod, Claimed: p.Claimed, InvokingUser: p.InvokingUser,
	}
}
