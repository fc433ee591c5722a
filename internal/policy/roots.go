package policy

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"sync"
)

// rootsFile is one file of roots, read and parsed once.
type rootsFile struct {
	sum   [sha256.Size]byte
	certs []*x509.Certificate
	pool  *x509.CertPool // of certs
}

// newRootsFile takes what x509.CertPool.AppendCertsFromPEM takes, and returns
// nil if that is nothing.
func newRootsFile(text []byte) *rootsFile {
	f := &rootsFile{sum: sha256.Sum256(text), pool: x509.NewCertPool()}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			f.certs = append(f.certs, cert)
			f.pool.AddCert(cert)
		}
	}
	if len(f.certs) == 0 {
		return nil
	}
	return f
}

// maxPools bounds the united pools that a Set remembers. Which rules match
// together, and so which files, is up to the agent.
const maxPools = 64

// pools remembers pools by the set of files that they were united from. The
// zero value is ready.
type pools struct {
	mu    sync.Mutex
	known map[string]*x509.CertPool // :: the files' sums, sorted → their pool
}

// of returns a pool with the certificates of files, each of which is there
// once; nil for none.
func (p *pools) of(files []*rootsFile) *x509.CertPool {
	switch len(files) {
	case 0:
		return nil
	case 1:
		return files[0].pool
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b *rootsFile) int { return cmp.Compare(string(a.sum[:]), string(b.sum[:])) })
	var key []byte
	for _, f := range sorted {
		key = append(key, f.sum[:]...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if pool := p.known[string(key)]; pool != nil {
		return pool
	}
	pool := x509.NewCertPool()
	for _, f := range files {
		for _, cert := range f.certs {
			pool.AddCert(cert)
		}
	}
	if p.known == nil {
		p.known = map[string]*x509.CertPool{}
	}
	if len(p.known) < maxPools {
		p.known[string(key)] = pool
	}
	return pool
}
