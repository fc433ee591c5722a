// Package link is the one connection between an engine and aegrail-control:
// what api/engine/v1 says, spoken from both ends. Server is control's end,
// Client the engine's.
//
// An engine gets two things over it. Its policy is streamed, now and after each
// change. Its certificate authority is signed for a key that the engine makes
// and that never leaves its memory: a day's intermediate, constrained to the
// names that the policy allows. The constraints come from control's policy and
// never from the engine: a request that is not exactly the template is refused
// (see CheckRequest), since cert-manager's issuer copies what a request carries.
//
// Who calls is known by a token that Kubernetes binds to a pod. Nothing that a
// caller says selects a pod, a policy or a name.
//
// Nothing here is in the way of a request: an engine serves with what it has
// while control is away, slow or wrong. A gateway alone asks whose a connection
// is as it begins.
package link

import (
	"context"
	"net/netip"
	"time"
)

// Pod is whose engine calls, as control has verified it.
type Pod struct {
	Namespace, Name, UID, ServiceAccount string

	Claimed      string // the label aegrail.io/identity: recorded, selects nothing
	CAGeneration int    // of the namespace's root that the pod trusts

	// Gateway: the caller is an engine for every pod of Namespace. Its policy is
	// that namespace's, and it may ask whose a connection is.
	Gateway bool
	Host    string // of a gateway: the name that its callers connect to
}

// Policy is what is in force for a pod.
type Policy struct {
	YAML     []byte // the documents that select the pod; none: everything is denied
	Revision string // at most 128 bytes
	Template Template
}

// Template is what a certificate authority for a policy must be, byte for byte.
// The zero value allows no host and gets none.
type Template struct {
	RawSubject      []byte // DER
	NameConstraints []byte // DER of the extension's value; it is critical
	Unconstrained   bool   // a rule for every host leaves no constraint to give
}

// None reports whether there is to be no certificate authority.
func (t Template) None() bool { return len(t.NameConstraints) == 0 && !t.Unconstrained }

// Intermediate is what was signed for a request.
type Intermediate struct {
	Chain      [][]byte  // DER: the intermediate first, the root last
	RenewAfter time.Time // zero: at two thirds of its life
}

// Backend is what control knows. Its methods are called concurrently and must
// return when ctx ends. An error that is a *Refusal is told to the engine as it
// is; any other is told as "control cannot answer now", and in full to
// ServerOptions.Refused alone.
type Backend interface {
	// Authenticate says whose token it is: reviewed for control's own audience,
	// bound to a pod that lives and was injected by us. It is called once for
	// each call of an engine; token is not empty.
	Authenticate(ctx context.Context, token string) (Pod, error)

	// Policy returns what is in force for pod, and a channel that is closed when
	// that may have changed. It does not block.
	Policy(pod Pod) (Policy, <-chan struct{}, error)

	// Sign has csrDER signed for pod. The server has checked that the request is
	// exactly the template of what Policy returned with revision a moment ago.
	Sign(ctx context.Context, pod Pod, csrDER []byte, revision string) (Intermediate, error)
}

// Reviewer is a Backend that serves gateways as well. Without it a gateway is
// told of no caller.
type Reviewer interface {
	// Review says whose the caller of a gateway is. A caller that is not known is
	// a *Refusal of kind Denied; one of another namespace than the gateway's is
	// refused by the server. It is called concurrently and must return when ctx
	// ends.
	Review(ctx context.Context, gateway Pod, who Caller) (Pod, error)
}

// Caller is what is known of who connects to a gateway: a token for the audience
// "aegrail-gateway", or else the address it comes from.
type Caller struct {
	Token   string
	Address netip.Addr
}
