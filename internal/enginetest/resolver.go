package enginetest

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Resolver is the DNS of a test: it knows the names of the test's hosts and
// nothing else, and remembers what it was asked. It implements
// upstream.Resolver.
type Resolver struct {
	mu     sync.Mutex
	names  map[string]func(asked int) []netip.Addr
	asked  []string
	lookup func(host string) // called before each answer
}

// NewResolver returns a Resolver that knows no name.
func NewResolver() *Resolver {
	return &Resolver{names: map[string]func(int) []netip.Addr{}}
}

// Set makes host resolve to addrs from now on.
func (r *Resolver) Set(host string, addrs ...netip.Addr) {
	r.SetFunc(host, func(int) []netip.Addr { return addrs })
}

// SetFunc makes host resolve to what f returns. f is told how often the name
// was asked for before, so that a test can rebind it; no addresses mean that
// the name does not exist.
func (r *Resolver) SetFunc(host string, f func(asked int) []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[host] = f
}

// Asked returns every name that was looked up, in order, with repetitions.
func (r *Resolver) Asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// LookupNetIP answers for the names that were set, and that no such host
// exists for every other.
func (r *Resolver) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	host = strings.TrimSuffix(host, ".") // rooted names keep a search list out
	r.mu.Lock()
	before := 0
	for _, name := range r.asked {
		if name == host {
			before++
		}
	}
	r.asked = append(r.asked, host)
	f, lookup := r.names[host], r.lookup
	r.mu.Unlock()
	if lookup != nil {
		lookup(host)
	}
	var addrs []netip.Addr
	if f != nil {
		addrs = slices.Clone(f(before))
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return network == "ip4" && !a.Is4() || network == "ip6" && a.Is4()
	})
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}
