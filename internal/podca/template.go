package podca

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// maxConstraints bounds the extension: it goes over the wire in every
// handshake, OpenSSL takes a chain of 100 KiB at most, and the link a request of
// 64 KiB.
const maxConstraints = 60 << 10 // 60 KiB, about 2500 hosts

// Constraint is what the names of a pod's authority are confined to.
type Constraint struct {
	DER           []byte // value of the name constraints extension, critical; nil with Unconstrained alone
	Unconstrained bool   // X.509 has no words for what the policy allows
	Why           string // of Unconstrained, for people
}

// IsZero reports that no host is allowed. Then there is no authority, since
// in X.509 an empty list of permitted names permits every name.
func (c Constraint) IsZero() bool { return c.DER == nil && !c.Unconstrained }

// Constraints returns what the policy of who confines an authority to. It is
// the same, byte for byte, as long as the policy allows the same hosts.
//
// A policy that allows every host, one that observes, and one with more hosts
// than a handshake can carry leave the authority unconstrained; what such an
// agent may do is then up to the engine's policy alone.
func Constraints(set *policy.Set, who identity.Principal) (Constraint, error) {
	return constrain(who.ID(), map[string]bool{}, set.For(who))
}

// NamespaceConstraints is Constraints for an engine of all agents of a namespace:
// what any of them could be allowed, whatever its service account. Host, if it
// is not "", is the engine's own name, in whose certificate it listens.
func NamespaceConstraints(set *policy.Set, namespace, host string) (Constraint, error) {
	names := map[string]bool{}
	if host != "" {
		names[host], names[host+clusterDomain] = true, true
	}
	return constrain("a gateway for "+namespace, names, set.NamespaceViews(namespace)...)
}

// clusterDomain is what is behind the name of a Service in most clusters.
const clusterDomain = ".cluster.local"

// constrain confines an authority to names and to what any of the views could allow.
func constrain(whose string, names map[string]bool, views ...*policy.View) (Constraint, error) {
	for _, view := range views {
		if view.Observes() {
			return Constraint{Unconstrained: true, Why: "the policy observes, which lets every host pass"}, nil
		}
		for _, host := range view.Inspected() {
			names[host] = true
		}
	}
	if names["*"] {
		return Constraint{Unconstrained: true, Why: "a rule allows every host"}, nil
	}
	if len(names) == 0 {
		return Constraint{}, nil
	}
	hosts := slices.Sorted(maps.Keys(names))
	der, err := certs.NameConstraints(hosts)
	if err != nil {
		return Constraint{}, fmt.Errorf("constraining the authority of %s: %w", whose, err)
	}
	if len(der) > maxConstraints {
		return Constraint{Unconstrained: true, Why: fmt.Sprintf(
			"%d hosts make %d bytes of constraints, and a handshake has room for %d; allow wildcards in place of lists", len(hosts), len(der), maxConstraints)}, nil
	}
	return Constraint{DER: der}, nil
}

// NewTemplate is the template of a pod under a constraint.
func NewTemplate(pod link.Pod, c Constraint) (link.Template, error) {
	if c.IsZero() {
		return link.Template{}, nil
	}
	if pod.UID == "" || pod.Namespace == "" {
		return link.Template{}, errors.New("naming a pod's authority: the pod has no UID or no namespace")
	}
	// RFC 5280 bounds both names to 64 characters: a UID has 36, a namespace at most 63.
	subject, err := asn1.Marshal(pkix.Name{
		Organization: []string{"aegrail-engine"}, OrganizationalUnit: []string{pod.Namespace}, CommonName: "aegrail-engine pod " + pod.UID,
	}.ToRDNSequence())
	if err != nil {
		return link.Template{}, fmt.Errorf("naming a pod's authority: %w", err)
	}
	return link.Template{RawSubject: subject, NameConstraints: c.DER, Unconstrained: c.Unconstrained}, nil
}

// fingerprint tells templates apart in an annotation.
func fingerprint(t link.Template) string {
	h := sha256.New()
	fmt.Fprintf(h, "%x %x %t", t.RawSubject, t.NameConstraints, t.Unconstrained)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
