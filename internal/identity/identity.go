// Package identity says whose connection this is.
//
// What Kubernetes vouches for (namespace, service account, pod) selects
// policy. What a pod claims of itself (a label) is recorded and selects
// nothing. On a laptop there is no one to vouch, and the principal is what the
// user said with --agent-identity.
//
// The package decides nothing: a Principal without a policy is denied by
// package policy.
package identity

import "github.com/arpitcoder/aegrail-engine/internal/intake"

// Principal is the caller as far as it is vouched for. The zero value is
// nobody.
type Principal struct {
	Namespace      string // vouched for by Kubernetes
	ServiceAccount string // vouched for by Kubernetes
	Pod            string // for the record only
	Claimed        string // the aegrail.io/identity label; recorded, selects nothing
	AgentIdentity  string // --agent-identity: the name on a laptop
	InvokingUser   string // from a verified token alone
}

// ID returns a stable key of the principal: what counters, pools and the
// audit log's agent_identity go by. Nobody's is "".
func (p Principal) ID() string {
	switch {
	case p.Namespace != "":
		return p.Namespace + "/" + p.ServiceAccount
	default:
		return p.AgentIdentity
	}
}

// Func says whose connection flow is. An error means that the caller could not
// be established: the connection is refused and recorded. It is asked again while
// a connection lasts, which is refused from then on if the answer is another.
type Func func(flow intake.Flow) (Principal, error)

// Fixed returns a Func that names the same principal for every connection: a
// sidecar has one agent, and so has a laptop's exec.
func Fixed(p Principal) Func {
	return func(intake.Flow) (Principal, error) { return p, nil }
}
