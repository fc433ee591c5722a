package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/watch"
)

// servingCert is a certificate for --listen-tls in files, which cert-manager
// replaces under way. The certificate in force is that of the last good pair.
type servingCert struct {
	certFile, keyFile string

	current atomic.Pointer[tls.Certificate]
	mu      sync.Mutex
	sum     [sha256.Size]byte // of what the last load read; guarded by mu
	fault   error             // what the last load ended with; guarded by mu
}

// load reads the pair, and reports whether what it read differs from the time
// before.
func (c *servingCert) load() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	certPEM, cerr := readFile("certificate of --listen-tls", c.certFile)
	keyPEM, kerr := readFile("key of --listen-tls", c.keyFile)
	defer clear(keyPEM)
	err = errors.Join(cerr, kerr)
	var pair tls.Certificate
	if err == nil {
		if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
			err = fmt.Errorf("loading %s and %s: %w", c.certFile, c.keyFile, err)
		} else if now := time.Now(); now.After(pair.Leaf.NotAfter) {
			err = fmt.Errorf("loading %s: it expired at %s", c.certFile, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %x", sha256.Sum256(certPEM), sha256.Sum256(keyPEM)))
	changed = sum != c.sum || (err == nil) != (c.fault == nil)
	c.sum, c.fault = sum, err
	if err == nil && changed {
		c.current.Store(&pair)
	}
	return changed, badInput(err)
}

// get is tls.Config's GetCertificate.
func (c *servingCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

func (c *servingCert) watched() watch.Item {
	return watch.Item{Name: "listen-tls", Files: func() []string { return []string{c.certFile, c.keyFile} }, Load: c.load}
}
