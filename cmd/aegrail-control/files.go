package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
	"github.com/arpitcoder/aegrail-engine/internal/watch"
)

// maxFile bounds what is read as configuration.
const maxFile = 8 << 20 // 8 MiB; a ConfigMap has 1.5 at most

func readFile(what, name string) ([]byte, error) { return watch.ReadFile(what, name, maxFile) }

// policyFile is the policy of all agents as it stands in a file.
type policyFile struct {
	name string
	sum  [sha256.Size]byte // of what the last load read
	bad  bool              // what the last load read does not compile
}

// load reads and compiles the file. A set that is nil with no error is what
// is in force already.
func (p *policyFile) load() (*policy.Set, error) {
	data, err := readFile("policy", p.name)
	if err != nil {
		p.bad = true
		return nil, err
	}
	sum := sha256.Sum256(data)
	if sum == p.sum && !p.bad {
		return nil, nil
	}
	p.sum, p.bad = sum, true
	docs, err := v1alpha1.Parse(p.name, data)
	if err != nil {
		return nil, badInput(err)
	}
	// A file of roots would have to be where the engine is. It is said here and not by every engine.
	set, _, err := policy.Compile(docs, policy.Options{})
	if err != nil {
		return nil, badInput(err)
	}
	p.bad = false
	return set, nil
}

// serving is the certificate that webhooks and link present, and the CA by
// which engines know it, as cert-manager keeps them in a Secret.
type serving struct {
	dir     string
	current atomic.Pointer[presented]
}

// presented is one version of it.
type presented struct {
	cert *tls.Certificate
	ca   []byte // PEM
	sum  [sha256.Size]byte
}

// files are those of the Secret.
func (s *serving) files() []string {
	return []string{filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key"), filepath.Join(s.dir, "ca.crt")}
}

// load reads the files and puts them in force if they fit together. A Secret that is swapped between two reads does not.
func (s *serving) load(now time.Time) (changed bool, err error) {
	var parts [3][]byte
	for i, name := range s.files() {
		if parts[i], err = readFile("certificate of webhooks and link", name); err != nil {
			return false, err
		}
	}
	sum := sha256.Sum256(bytes.Join(parts[:], []byte{0}))
	if was := s.current.Load(); was != nil && was.sum == sum {
		return false, nil
	}
	cert, err := tls.X509KeyPair(parts[0], parts[1])
	if err != nil {
		return false, badInput(fmt.Errorf("the certificate in %s: %w", s.dir, err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(parts[2]) {
		return false, badInput(fmt.Errorf("%s holds no PEM certificate: engines would not know control by it", filepath.Join(s.dir, "ca.crt")))
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, Intermediates: intermediates(&cert)}); err != nil {
		return false, badInput(fmt.Errorf("the certificate in %s: %w", s.dir, err))
	}
	s.current.Store(&presented{&cert, parts[2], sum})
	return true, nil
}

func intermediates(cert *tls.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(c)
		}
	}
	return pool
}

// certificate is for tls.Config.
func (s *serving) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if p := s.current.Load(); p != nil {
		return p.cert, nil
	}
	return nil, errors.New("no certificate is loaded yet")
}

// ca is what engines verify the certificate with, PEM.
func (s *serving) ca() ([]byte, error) {
	if p := s.current.Load(); p != nil {
		return p.ca, nil
	}
	return nil, errors.New("no certificate is loaded yet")
}
