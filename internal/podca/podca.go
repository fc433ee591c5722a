// Package podca gives each injected pod a certificate authority of its own: an
// intermediate below its namespace's root that can sign for what the pod's
// policy could allow and for nothing else, whose key never leaves the engine.
//
// # The template
//
// What such an authority may be is decided here and never by who asks for it.
// [Constraints] makes the name constraints of a policy, [NewTemplate] adds the
// subject, and a signing request must be that template, byte for byte
// (link.CheckRequest). That is checked before cert-manager sees the request,
// because cert-manager's CA issuer copies subject and constraints from it.
//
// # Who asks
//
// [Signer.Authenticate] takes a service account token for the audience
// "aegrail-control" that Kubernetes has bound to a pod, and then looks at that
// pod itself: it lives (a gateway may be on its way out), has that UID and service account, and is what injection
// left. A token that is not bound, one for another audience and one of a pod
// that has ended say nothing.
//
// # Gateways
//
// A gateway is an engine for all pods of a namespace. It is a pod of control's
// own namespace, which those who make agents' pods have no rights in, with the
// service account aegrail-gateway-<namespace> and the label
// aegrail.io/gateway-for=<namespace>, as the chart makes it. Its policy and its
// authority are those of the namespace's agents together, and the authority may
// sign for the gateway's own name: what it presents to its callers they trust by
// the same root as all else, and no certificate of the gateway's has a key that
// is kept anywhere. [Signer.Review] tells
// it whose a connection is: by a token for the audience "aegrail-gateway" that is
// bound to a living pod of that namespace, else by the address, if exactly one
// pod there has it and has it for itself.
//
// # One authority a pod
//
// [Signer.Sign] makes a cert-manager CertificateRequest in control's own
// namespace, waits for it and checks what comes back: is it a CA, for that key,
// with those constraints, for a day, below that root. The requests of a pod are
// numbered by their names, aegrail-pod-<uid>-<n>, and the chain of the last one
// alone is handed out. The next number is free once three fifths of the
// authority's life are over (its engine renews it at two thirds, or a little
// before), the template is another one, the engine's container has been started
// anew, or the request has failed. So whoever else comes to hold the token in
// between gets nothing, whichever replica of control is asked: of two that make
// the same name the API server takes one.
//
// What an authority that is not used any more can do ends with its day. Its
// request is deleted by [Signer.Sweep] after the pod or a newer request, which
// takes nothing back.
//
// # Rights
//
// What the API server must allow, and for what:
//
//	tokenreviews (authentication.k8s.io)   create             cluster     who calls
//	pods                                   get list           cluster     the caller's pod, and the pod with an address, read live
//	certificaterequests (cert-manager.io)  create get list delete   control's namespace   the intermediates
//	events (events.k8s.io)                 create patch       cluster     what was issued and refused, on the pod
//
// [Backend] puts this together with the policy in force into what the link's
// server asks, and [Recorder] writes down what became of the calls: in the log,
// in a counter and, where it is known whose call it was, in an Event on the pod.
package podca

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const (
	// Audience is what an engine's token must be for.
	Audience = inject.TokenAudience

	// GatewayAudience is what the token must be for that a gateway's caller brings.
	GatewayAudience = "aegrail-gateway"

	// Life is how long an intermediate is valid.
	Life = 24 * time.Hour

	// IssueWait is how long Sign waits for cert-manager, which takes a fraction
	// of a second.
	IssueWait = 20 * time.Second

	// askWait bounds one question to the API server.
	askWait = 10 * time.Second
)

// Options are what a Signer works with. All are required but Now.
type Options struct {
	// Namespace is control's own, in which requests and issuers are.
	Namespace string

	// Client writes; it must read its own namespace's requests live.
	Client client.Client

	// Live reads pods and requests from the API server and not from a cache: a
	// pod that was deleted must be seen to be.
	Live client.Reader

	// Injected reports why a pod is not as injection left it.
	Injected func(*corev1.Pod) error

	// Issuer names the cert-manager Issuer of a namespace's generation.
	Issuer func(namespace string, generation int) string

	// Generation returns the newest generation that all agents of a namespace
	// trust which a gateway serves, 0 for none yet. A gateway's authority is of it.
	Generation func(ctx context.Context, namespace string) (int, error)

	// Roots returns the roots that a chain of that generation must lead to.
	Roots func(ctx context.Context, namespace string, generation int) ([]*x509.Certificate, error)

	Recorder *Recorder

	Now func() time.Time // nil: time.Now
}

// Signer authenticates pods and has intermediates signed for them. It may be
// used from many goroutines and on several replicas at once.
type Signer struct {
	Options
}

// NewSigner refuses options with which it could not say no.
func NewSigner(o Options) (*Signer, error) {
	switch {
	case o.Namespace == "":
		return nil, errors.New("signing for pods: which namespace is control's own must be given")
	case o.Client == nil || o.Live == nil:
		return nil, errors.New("signing for pods: a client that writes and a reader without a cache must be given")
	case o.Injected == nil || o.Issuer == nil || o.Generation == nil || o.Roots == nil:
		return nil, errors.New("signing for pods: how to tell an injected pod, its issuer, generation and roots must be given")
	case o.Recorder == nil:
		return nil, errors.New("signing for pods: what is issued and refused must be recorded; give a recorder")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Signer{o}, nil
}
