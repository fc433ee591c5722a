package link

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
)

const (
	maxChain = 8              // certificates: an intermediate, what a company has above it, a root
	maxLife  = 25 * time.Hour // of an intermediate: a day, and what it was backdated by
)

// attempt is what a certificate is asked for with. It is kept over retries:
// control gives a pod one certificate in half a day, and the same request has
// the same answer, also where the first one was lost.
type attempt struct {
	template Template
	key      *podKey
	request  []byte
	made     time.Time
}

// attemptLife is after which another key is asked for: what control once
// signed for the old one, and would send again, may be over.
const attemptLife = 12 * time.Hour

func newAttempt(t Template) (*attempt, error) {
	key, err := newPodKey()
	if err != nil {
		return nil, err
	}
	request, err := NewRequest(t, key)
	if err != nil {
		return nil, err
	}
	return &attempt{template: t, key: key, request: request, made: time.Now()}, nil
}

// authority makes an Authority of what control returned for a, after it was
// looked at as if control were not to be believed: what is wrong here would be
// wrong at every handshake, or would be a wider authority than the policy.
// trusted are the roots that the pod's clients have; nil: not known.
func (a *attempt) authority(chain [][]byte, trusted []*x509.Certificate, now time.Time) (*certs.Authority, error) {
	if len(chain) < 2 || len(chain) > maxChain {
		return nil, fmt.Errorf("control sent %d certificates, want an intermediate, what is above it, and the root", len(chain))
	}
	list := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		var err error
		if list[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d of those control sent: %w", i+1, err)
		}
	}
	if err := checkIntermediate(list[0], a.key.Public(), a.template, now); err != nil {
		return nil, fmt.Errorf("the intermediate that control sent: %w", err)
	}
	for i, c := range list[:len(list)-1] {
		if err := c.CheckSignatureFrom(list[i+1]); err != nil {
			return nil, fmt.Errorf("certificate %d of those control sent is not signed by the next one: %w", i+1, err)
		}
	}
	root := list[len(list)-1]
	if err := root.CheckSignatureFrom(root); err != nil {
		return nil, fmt.Errorf("the last certificate that control sent, %q, is no root: %w", root.Subject, err)
	}
	if trusted != nil && !slices.ContainsFunc(trusted, func(c *x509.Certificate) bool { return standsFor(c, root, now) }) {
		return nil, fmt.Errorf("the root %q is not in the bundle that the pod's clients trust: every handshake would fail; restart the pod, which then reads the new bundle", root.Subject)
	}
	return certs.New(list, a.key, list[len(list)-1:], now)
}

// standsFor reports that who trusts have trusts what leads to root: it is that
// root, or the one that was renewed to it with its name and key. The pod's
// clients read the bundle once, when they started, and keep that one.
func standsFor(have, root *x509.Certificate, now time.Time) bool {
	return have.Equal(root) || now.Before(have.NotAfter) && bytes.Equal(have.RawSubject, root.RawSubject) &&
		bytes.Equal(have.RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo)
}

// checkIntermediate says why c is not what t asked for. Its path, its validity
// now and that it can sign is for package certs to check.
func checkIntermediate(c *x509.Certificate, key crypto.PublicKey, t Template, now time.Time) error {
	pub, ok := key.(*ecdsa.PublicKey)
	switch {
	case !ok || !pub.Equal(c.PublicKey):
		return errors.New("it is for another key than ours")
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is not a CA")
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage lacks certSign")
	case !bytes.Equal(c.RawSubject, t.RawSubject):
		return fmt.Errorf("its subject is %q, which is not the template's", c.Subject)
	case c.NotAfter.Sub(c.NotBefore) > maxLife:
		return fmt.Errorf("it is valid for %s, want at most %s", c.NotAfter.Sub(c.NotBefore), maxLife)
	case !now.Before(c.NotAfter):
		return fmt.Errorf("it expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	found := 0
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidNameConstraints()) {
			continue
		}
		if found++; !e.Critical || !bytes.Equal(e.Value, t.NameConstraints) {
			return errors.New("its name constraints are not those of the policy")
		}
	}
	if want := 1; t.Unconstrained && found > 0 || !t.Unconstrained && found != want {
		return fmt.Errorf("it has %d name constraints, want %d as the policy has it", found, map[bool]int{true: 0, false: want}[t.Unconstrained])
	}
	return nil
}

// renewal is when an intermediate is to be renewed: when control says, and at
// two thirds of its life at the latest. One that is older than that, as it was
// backdated, has half of what is left.
func renewal(c *x509.Certificate, asked, now time.Time) time.Time {
	due := c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
	if !due.After(now) {
		due = now.Add(c.NotAfter.Sub(now) / 2)
	}
	if asked.After(now) && asked.Before(due) {
		return asked
	}
	return due
}
