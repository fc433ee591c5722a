package proxy

import (
	"errors"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
)

// identify asks whose connection this is. It is asked again when the
// credentials of a plain connection change.
func (c *conn) identify() *refusal {
	p, err := c.s.cfg.Identify(c.flow)
	if err != nil {
		// What is refused is nobody's, whose connection ever it was before.
		c.leaveTally()
		c.principal, c.principalID, c.tally, c.agent = identity.Principal{}, "", nil, audit.Agent{}
		c.bound.Store(nil)
		return unidentified(err)
	}
	c.identified.Store(c.s.now().UnixNano())
	if p != c.principal || c.principalID == "" {
		c.leaveTally()
		c.principal, c.principalID = p, p.ID()
		c.bound.Store(nil)
		c.agent = audit.Agent{
			Identity: c.principalID, Namespace: p.Namespace, ServiceAccount: p.ServiceAccount,
			Pod: p.Pod, Claimed: p.Claimed, InvokingUser: p.InvokingUser,
		}
		if c.tally = c.s.tallies.join(c.principalID, c.s.known(c)); c.tally == nil {
			return &refusal{
				status: 503, reason: "too_many_connections", retryAfter: time.Second, close: true,
				detail: "this agent has as many connections as it may have at once",
			}
		}
	}
	return nil
}

// unidentified is the answer to who could not be established. Err may name control,
// a pod or a namespace, which is no matter of a caller who may be anybody.
func unidentified(err error) *refusal {
	if errors.Is(err, identity.ErrLater) {
		return &refusal{
			status: 503, reason: "identity_unavailable", logged: err.Error(),
			detail: "whose connection this is cannot be found out now; try again",
		}
	}
	return &refusal{
		status: 407, reason: "unknown_principal", logged: err.Error(),
		detail: "nobody vouches for whose connection this is; want a token in Proxy-Authorization, as Bearer or as the password of Basic",
	}
}

// identifyEvery is how long it is believed whose connection a tunnel is.
const identifyEvery = time.Second

// still refuses a request, at now, of a connection that is not its principal's any
// more: a tunnel may be kept for longer than there is who opened it. The answer is
// not 407, which in a tunnel would be its origin's.
func (c *conn) still(now time.Time) *refusal {
	if now.UnixNano()-c.identified.Load() < int64(identifyEvery) {
		return nil
	}
	p, err := c.s.cfg.Identify(c.flow)
	switch {
	case err != nil:
		why := unidentified(err)
		if why.status == 407 {
			why.status = 403
		}
		why.close, why.ends = true, true
		return why
	case p != c.principal:
		return &refusal{status: 403, reason: "principal_changed", detail: "the connection belongs to somebody else by now", close: true, ends: true}
	}
	c.identified.Store(now.UnixNano())
	return nil
}

// leaveTally takes c off its principal's tally. It stays c's: a stream of HTTP/2
// may begin, in a goroutine of its own, when its connection is forgotten.
func (c *conn) leaveTally() {
	if c.tally != nil {
		c.s.tallies.leave(c.principalID)
	}
}
