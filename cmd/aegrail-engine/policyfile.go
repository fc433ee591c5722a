package main

import (
	"crypto/sha256"
	"errors"
	"hash"
	"path/filepath"
	"slices"
	"sync"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// policyFile is the policy as it stands in a file, with the roots files that
// it names beside it. The zero name is no file: the set that denies everything,
// but for the allowlist in options.
type policyFile struct {
	name    string
	options policy.Options // without Files
	served  bool           // read as aegrail-control does, which has no files that engines have

	mu    sync.Mutex
	read  []string          // what the last load read; guarded by mu
	sum   [sha256.Size]byte // of what the last load read; guarded by mu
	fault error             // what the last load ended with; guarded by mu
}

// compiled is a policy set and what check has to say about it.
type compiled struct {
	set      *policy.Set
	docs     []v1alpha1.AgentPolicy
	warnings []policy.Warning
}

// load reads and compiles. Names of roots files are relative to the policy
// file, so that a mounted ConfigMap can hold both.
func (p *policyFile) load() (compiled, error) {
	c, _, err := p.reload()
	return c, err
}

// reload is load, and reports whether what it read differs from what it read
// the time before. What is unchanged and was broken is still broken.
func (p *policyFile) reload() (c compiled, changed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := sha256.New()
	p.read = p.read[:0]
	if p.name != "" {
		data, err := p.take("policy", p.name, sum)
		if err != nil {
			p.fault = err
			return c, true, err
		}
		c.docs, err = v1alpha1.Parse(p.name, data)
		if err != nil {
			return c, p.settle(sum, err), badInput(err)
		}
	}
	options := p.options
	if !p.served {
		options.Files = p.beside(sum)
	}
	c.set, c.warnings, err = policy.Compile(c.docs, options)
	return c, p.settle(sum, err), badInput(err)
}

// beside reads files that are named relative to the policy's.
func (p *policyFile) beside(sum hash.Hash) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(p.name), name)
		}
		return p.take("roots of a rule", name, sum)
	}
}

// take reads a file and remembers that it was part of the policy.
func (p *policyFile) take(what, name string, sum hash.Hash) ([]byte, error) {
	if !slices.Contains(p.read, name) {
		p.read = append(p.read, name)
	}
	data, err := readFile(what, name)
	if err != nil {
		return nil, badInput(err)
	}
	digest := sha256.Sum256(data)
	sum.Write(digest[:])
	return data, nil
}

func (p *policyFile) settle(sum hash.Hash, err error) (changed bool) {
	var now [sha256.Size]byte
	sum.Sum(now[:0])
	changed = now != p.sum || (err == nil) != (p.fault == nil)
	p.sum, p.fault = now, err
	return changed
}

// files is what the policy was last read from.
func (p *policyFile) files() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.name == "" {
		return nil
	}
	if len(p.read) == 0 {
		return []string{p.name}
	}
	return slices.Clone(p.read)
}

// faults splits an error into one line each: a policy file reports up to ten.
func faults(err error) []error {
	var many v1alpha1.Errors
	if errors.As(err, &many) {
		return many.Unwrap()
	}
	return []error{err}
}
