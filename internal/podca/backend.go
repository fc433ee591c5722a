package podca

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// Policies is the policy in force and what of it is whose. Before the first
// Swap nobody gets an answer, so that an engine keeps what it has. It may be
// used from many goroutines.
type Policies struct {
	mu      sync.Mutex
	set     *policy.Set         // nil before the first Swap
	changed chan struct{}       // closed when set is replaced
	parts   map[partKey]*partOf // of set, made when first asked for
}

// partKey is what selects policies, and what an authority is for besides. A
// gateway has those of all its namespace, and its own name.
type partKey struct {
	namespace, serviceAccount string
	gateway                   bool
	host                      string
}

// partOf is the policy of one kind of pod.
type partOf struct {
	yaml       []byte
	revision   string
	constraint Constraint
}

// Swap puts a set in force and tells those who wait.
func (p *Policies) Swap(set *policy.Set) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed != nil {
		close(p.changed)
	}
	p.set, p.changed, p.parts = set, make(chan struct{}), map[partKey]*partOf{}
}

// InForce reports that there was a Swap.
func (p *Policies) InForce() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set != nil
}

// For returns what is in force for a pod, and a channel that is closed when that
// may have changed. The pod gets only the documents that select it, and their
// revision: another team's change is no news to it. A gateway gets those that
// select any agent of its namespace.
func (p *Policies) For(pod link.Pod) (link.Policy, <-chan struct{}, error) {
	part, changed, err := p.part(pod)
	if err != nil {
		return link.Policy{}, nil, err
	}
	t, err := NewTemplate(pod, part.constraint)
	if err != nil {
		return link.Policy{}, nil, err
	}
	return link.Policy{YAML: part.yaml, Revision: part.revision, Template: t}, changed, nil
}

// part is what of the set in force is a pod's.
func (p *Policies) part(pod link.Pod) (*partOf, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil {
		return nil, nil, link.Refuse(link.Unavailable, "no_policy", "aegrail-control has no policy that loads yet; its readiness says why")
	}
	key := partKey{pod.Namespace, pod.ServiceAccount, pod.Gateway, pod.Host}
	part := p.parts[key]
	if part == nil {
		var err error
		if part, err = newPart(p.set, key); err != nil {
			return nil, nil, err
		}
		p.parts[key] = part
	}
	return part, p.changed, nil
}

// newPart is what of a set is for the pods of a key, as the engine will compile it.
func newPart(set *policy.Set, key partKey) (*partOf, error) {
	who := identity.Principal{Namespace: key.namespace, ServiceAccount: key.serviceAccount}
	docs := set.Documents(who)
	if key.gateway {
		docs = set.NamespaceDocuments(key.namespace)
	}
	part := &partOf{}
	if len(docs) > 0 {
		var err error
		if part.yaml, err = v1alpha1.Marshal(docs); err != nil {
			return nil, fmt.Errorf("the policy of %s: %w", who.ID(), err)
		}
	}
	own, _, err := policy.Compile(docs, policy.Options{})
	if err != nil {
		return nil, fmt.Errorf("the policy of %s: %w", who.ID(), err)
	}
	part.revision = own.Revision()
	if key.gateway {
		part.constraint, err = NamespaceConstraints(own, key.namespace, key.host)
	} else {
		part.constraint, err = Constraints(own, who)
	}
	return part, err
}

// Backend is what the link's server asks.
type Backend struct {
	signer   *Signer
	policies *Policies
}

// NewBackend puts a Signer and Policies together.
func NewBackend(s *Signer, p *Policies) (*Backend, error) {
	if s == nil || p == nil {
		return nil, errors.New("answering engines: a signer and policies must be given")
	}
	return &Backend{s, p}, nil
}

// Authenticate is link.Backend's.
func (b *Backend) Authenticate(ctx context.Context, token string) (link.Pod, error) {
	return b.signer.Authenticate(ctx, token)
}

// Policy is link.Backend's.
func (b *Backend) Policy(pod link.Pod) (link.Policy, <-chan struct{}, error) {
	return b.policies.For(pod)
}

// Review is link.Reviewer's.
func (b *Backend) Review(ctx context.Context, gateway link.Pod, who link.Caller) (link.Pod, error) {
	return b.signer.Review(ctx, gateway, who)
}

// Sign is link.Backend's. What it signs for is the template of the policy that
// is in force now, whatever was checked before.
func (b *Backend) Sign(ctx context.Context, pod link.Pod, csrDER []byte, _ string) (link.Intermediate, error) {
	part, _, err := b.policies.part(pod)
	if err != nil {
		return link.Intermediate{}, err
	}
	t, err := NewTemplate(pod, part.constraint)
	if err != nil {
		return link.Intermediate{}, err
	}
	made, err := b.signer.Sign(ctx, pod, t, csrDER)
	if err == nil && part.constraint.Unconstrained {
		b.signer.Recorder.unconstrained(pod, part.constraint.Why)
	}
	return made, err
}
