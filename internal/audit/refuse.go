package audit

import (
	"errors"
	"net/netip"
	"time"
)

// ErrBudget means that a principal's refusals come faster than its budget
// allows. They are counted still, but that principal is to be refused whatever
// it asks for, until its flood ends. Others are not affected.
var ErrBudget = errors.New("audit log: the agent's refusals have used up its records")

// RefusalLimits bounds what refusals cost. Zero values take the defaults.
type RefusalLimits struct {
	First  int           // refusals of one agent and reason that are written one by one in each Window; default 100
	Window time.Duration // then they are counted, and the count is written at the end of it; default 10 s
	Rate   int           // refusals a second and agent that its budget allows; default 50
	Burst  int           // … and at once; default 1000
	Agents int           // agents told apart, half as many addresses of nobody's among them; those beyond share one count and one budget; default 1024
}

func (r RefusalLimits) withDefaults() RefusalLimits {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&r.First, 100)
	set(&r.Rate, 50)
	set(&r.Burst, 1000)
	set(&r.Agents, 1024)
	if r.Window <= 0 {
		r.Window = 10 * time.Second
	}
	return r
}

// maxReasons is how many reasons are told apart for an agent. They are our own
// words, so this many there are not.
const maxReasons = 64

// principal is who a refusal is counted for: what is vouched for, so that no
// label buys a second budget. Who is nobody has an address: many clients say whose they
// are only when they were asked, and must be, whoever else says nothing without end.
type principal struct {
	namespace, serviceAccount, identity string

	address netip.Addr
}

func principalOf(r *Record) principal {
	a := r.Agent
	switch {
	case a == nil || a.Namespace == "" && a.Identity == "":
		return principal{address: r.Client.Addr()}
	case a.Namespace != "":
		return principal{namespace: a.Namespace, serviceAccount: a.ServiceAccount}
	default:
		return principal{identity: a.Identity}
	}
}

// refusals is the counts. Owned by Log.mu.
type refusals struct {
	limits RefusalLimits
	agents map[principal]*agentRefusals // :: who → what they were refused, bounded by limits.Agents
	nobody int                          // of them, those of an address
	rest   [2]*agentRefusals            // all other agents, and all other addresses
	over   int                          // agents that were out of budget when last looked at
}

// agentRefusals is one agent's counts and budget.
type agentRefusals struct {
	agent   Agent
	tokens  float64
	at      time.Time // when tokens was right
	over    bool
	reasons map[refusalKey]*refusal // bounded by maxReasons and one
}

type refusalKey struct {
	event  Event
	reason string
}

// refusal is one agent's refusals for one reason in this window.
type refusal struct {
	written     int // one by one
	count       int64
	first, last time.Time
}

func (r *refusal) add(n int64, first, last time.Time) {
	if r.count == 0 || first.Before(r.first) {
		r.first = first
	}
	if r.count == 0 || last.After(r.last) {
		r.last = last
	}
	r.count += n
}

// full reports that who is not to be told apart, and whose counts it shares then.
// Nobody's addresses leave room for agents.
func (r *refusals) full(who principal) (all bool, shared **agentRefusals) {
	if who.address.IsValid() {
		return r.nobody >= r.limits.Agents/2, &r.rest[1]
	}
	return len(r.agents) >= r.limits.Agents, &r.rest[0]
}

// of returns the counts of rec's principal, and makes them if there is room.
func (r *refusals) of(rec *Record, now time.Time) *agentRefusals {
	who, a := principalOf(rec), rec.Agent
	if p := r.agents[who]; p != nil {
		return p
	}
	p := &agentRefusals{tokens: float64(r.limits.Burst), at: now, reasons: map[refusalKey]*refusal{}}
	if full, shared := r.full(who); full {
		if *shared == nil {
			*shared = p
		}
		return *shared
	}
	if a != nil {
		p.agent = *a
		p.agent.Pod, p.agent.InvokingUser = "", "" // of one request, not of all
	}
	if r.agents == nil {
		r.agents = map[principal]*agentRefusals{}
	}
	r.agents[who] = p
	if who.address.IsValid() {
		r.nobody++
	}
	return p
}

// refill adds what time has brought. A clock set back brings nothing.
func (r *refusals) refill(p *agentRefusals, now time.Time) {
	if d := now.Sub(p.at); d > 0 {
		p.tokens = min(p.tokens+d.Seconds()*float64(r.limits.Rate), float64(r.limits.Burst))
	}
	p.at = now
	r.setOver(p, p.tokens < 1)
}

func (r *refusals) setOver(p *agentRefusals, over bool) {
	if over && !p.over {
		r.over++
	} else if !over && p.over {
		r.over--
	}
	p.over = over
}

// exhausted reports whether rec's principal has no budget left.
func (r *refusals) exhausted(rec *Record, now time.Time) bool {
	who := principalOf(rec)
	p := r.agents[who]
	if p == nil {
		full, shared := r.full(who)
		if p = *shared; p == nil || !full {
			return false
		}
	}
	r.refill(p, now)
	return p.over
}

func (p *agentRefusals) reason(key refusalKey) *refusal {
	f := p.reasons[key]
	if f == nil && len(p.reasons) >= maxReasons {
		key.reason = "other"
		f = p.reasons[key]
	}
	if f == nil {
		f = &refusal{}
		p.reasons[key] = f
	}
	return f
}

// Refuse records that something was refused: what never became a request, and
// denials that may come in floods. The first of an agent and reason in each
// window are committed like any other record; those beyond are counted, and
// the count is committed with the time of the first and the last at the end of
// the window and by Close. A crash loses counts of one window at most; nothing
// of what they count was forwarded. ErrBudget means that the refusal was
// counted and that the agent is out of budget.
func (l *Log) Refuse(r *Record) error {
	if r.Event != EgressDenied && r.Event != EgressError {
		return errors.New("audit log: Refuse takes egress_denied or egress_error")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	now := l.now()
	p := l.refusals.of(r, now)
	f := p.reason(refusalKey{r.Event, r.Reason})
	l.refusals.refill(p, now)
	if p.over {
		f.add(1, now, now)
		return ErrBudget
	}
	p.tokens--
	if f.written >= l.refusals.limits.First {
		f.add(1, now, now)
		return nil
	}
	f.written++
	_, err := l.commit(r, nil)
	if err != nil {
		f.add(1, now, now)
	}
	return err
}

// counted is one count on its way into the log.
type counted struct {
	agent *agentRefusals
	key   refusalKey
	was   refusal
}

// flushRefusals commits the counts and begins a new window. Counts that cannot
// be written stay. Called with mu held, which it gives up while it waits.
func (l *Log) flushRefusals() error {
	if err := l.admit(); err != nil {
		return err
	}
	now := l.now()
	var sent []counted
	for who, p := range l.refusals.agents {
		sent = l.countOut(sent, p, now)
		if len(p.reasons) == 0 && p.tokens >= float64(l.refusals.limits.Burst) {
			delete(l.refusals.agents, who)
			if who.address.IsValid() {
				l.refusals.nobody--
			}
		}
	}
	for _, p := range l.refusals.rest {
		if p != nil {
			sent = l.countOut(sent, p, now)
		}
	}
	if len(l.cur.buf) == 0 {
		return nil
	}
	err := l.join(l.cur)
	if err != nil {
		for _, c := range sent {
			c.agent.reason(c.key).add(c.was.count, c.was.first, c.was.last)
		}
	}
	return err
}

// countOut appends p's counts to the current batch and forgets what was idle.
func (l *Log) countOut(sent []counted, p *agentRefusals, now time.Time) []counted {
	for key, f := range p.reasons {
		if f.count > 0 {
			l.append(&Record{
				Event: key.event, Phase: PhaseDecision, Agent: &p.agent, Reason: key.reason,
				Detail: "more of the same, counted", Count: f.count, First: f.first, Last: f.last,
			}, nil)
			sent = append(sent, counted{p, key, *f})
		} else if f.written == 0 {
			delete(p.reasons, key)
			continue
		}
		*f = refusal{}
	}
	l.refusals.refill(p, now)
	return sent
}
