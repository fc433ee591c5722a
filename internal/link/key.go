package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
)

// podKey is the private key of a pod's certificate authority. It is made in this
// process and never leaves it, also not by being printed: the key is held by a
// closure, since fmt walks the unexported fields of whatever holds a value.
type podKey struct {
	public *ecdsa.PublicKey
	sign   func(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func newPodKey() (*podKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the pod's certificate authority: %w", err)
	}
	return hide(key), nil
}

func hide(key *ecdsa.PrivateKey) *podKey { return &podKey{public: &key.PublicKey, sign: key.Sign} }

// Public is the *ecdsa.PublicKey.
func (k *podKey) Public() crypto.PublicKey { return k.public }

// Sign is crypto.Signer's.
func (k *podKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(r, digest, opts)
}
