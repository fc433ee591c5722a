package main

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
)

// authorityFiles is a certificate authority as it stands in files: a mounted
// Secret, or what `ca init` made.
type authorityFiles struct {
	cert, key, dir string

	mu    sync.Mutex
	sum   [sha256.Size]byte // of what the last load read; guarded by mu
	fault error             // what the last load ended with; guarded by mu
}

func (a *authorityFiles) files() []string {
	if a.dir == "" {
		return []string{a.cert, a.key}
	}
	return []string{filepath.Join(a.dir, "tls.crt"), filepath.Join(a.dir, "tls.key"), filepath.Join(a.dir, "ca.crt")}
}

// load reads the authority and checks that it can sign.
func (a *authorityFiles) load() (*certs.Authority, error) {
	ca, _, err := a.reload()
	return ca, err
}

// reload is load, and reports whether what it read differs from what it read
// the time before.
func (a *authorityFiles) reload() (*certs.Authority, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := sha256.New()
	for _, name := range a.files() {
		// ca.crt may be missing; what must be there, certs says below.
		data, err := readFile("certificate authority", name)
		fmt.Fprintf(sum, "%s %x %v\n", name, sha256.Sum256(data), err)
	}
	var now [sha256.Size]byte
	sum.Sum(now[:0])
	var ca *certs.Authority
	var err error
	if a.dir != "" {
		ca, err = certs.LoadDir(a.dir, time.Now())
	} else {
		ca, err = certs.LoadFiles(a.cert, a.key, "", time.Now())
	}
	if err != nil {
		err = badInput(fmt.Errorf("loading the certificate authority: %w", err))
	}
	changed := now != a.sum || a.fault != nil
	a.sum, a.fault = now, err
	return ca, changed, err
}
