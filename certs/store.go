package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/arpitcoder/aegrail-engine/internal/bucket"
)

// What a zero StoreOptions means.
const (
	DefaultCapacity  = 1024 // hosts
	DefaultMintRate  = 200  // a second and principal; at 70 µs each, 1.4% of a core
	DefaultMintBurst = 1024 // a cold cache fills at once
)

// maxPrincipals is how many principals have a mint budget of their own. Those beyond share one.
const maxPrincipals = 1024

// maxCapacity bounds the cache in StoreOptions; an entry is about 4 KiB.
const maxCapacity = 1 << 20

// StoreOptions are a Store's settings; the zero value is ready for use.
type StoreOptions struct {
	// Capacity is how many leaves are kept. 0: DefaultCapacity.
	Capacity int
	// MintRate and MintBurst bound the mints of one principal for names that are not in the cache: MintRate a second after
	// MintBurst at once. Beyond it Leaf returns ErrThrottled, to that principal alone. Renewing a leaf that is in the cache is
	// free, so a flood of new names costs the known ones nothing until it pushes them out of the cache; then they cost their
	// next user a mint. 0: the defaults. There is no way to have no bound.
	MintRate  float64
	MintBurst int
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Store hands out leaves of the current Authority. It is safe for concurrent use. The leaf key is made with the Store and
// kept for its life, also across Swap.
type Store struct {
	now      func() time.Time
	key      *LeafKey
	capacity int
	budgets  *bucket.Buckets[string] // for mints, by principal: one's flood of new names is refused to that one alone

	current  atomic.Pointer[generation]
	swapping sync.Mutex // one Reload or Swap at a time: the older load must not win

	hits, misses, mints, throttled, evictions atomic.Uint64
}

// generation is an Authority, nil for none, with the leaves it signed. Swap replaces it as a whole: a mint that was under way then ends
// in the cache of the generation it began with, where nobody looks any more.
type generation struct {
	authority *Authority
	cache     *lru.Cache[string, entry]

	mu      sync.Mutex
	flights map[string]*flight // :: host → the mint under way
}

// entry is a leaf and the time, in Unix nanoseconds, in which it is handed out.
type entry struct {
	cert        *tls.Certificate
	from, until int64
}

func (e entry) fresh(now int64) bool { return e.from <= now && now < e.until }

// flight is one mint; cert and err are written before done is closed.
type flight struct {
	done chan struct{}
	cert *tls.Certificate
	err  error
}

// NewStore makes a store whose leaves a signs. If a is nil every leaf is refused with ErrNoAuthority until Swap brings one: without a
// CA nothing is intercepted, and nothing must pass as if it were.
func NewStore(a *Authority, o StoreOptions) (*Store, error) {
	if a != nil && a.sign == nil {
		return nil, errors.New("a CA without a key: use Load, LoadDir or NewEphemeral")
	}
	if o.Capacity == 0 {
		o.Capacity = DefaultCapacity
	}
	if o.MintRate == 0 {
		o.MintRate = DefaultMintRate
	}
	if o.MintBurst == 0 {
		o.MintBurst = DefaultMintBurst
	}
	if o.Capacity < 0 || o.Capacity > maxCapacity {
		return nil, fmt.Errorf("leaf cache of %d hosts: give 1 to %d", o.Capacity, maxCapacity)
	}
	if !(o.MintRate > 0) || o.MintBurst < 0 {
		return nil, fmt.Errorf("mint rate %v with burst %d: both must be positive", o.MintRate, o.MintBurst)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	key, err := NewLeafKey()
	if err != nil {
		return nil, err
	}
	s := &Store{now: o.Now, key: key, capacity: o.Capacity, budgets: bucket.New[string](bucket.Rate{PerSecond: o.MintRate, Burst: o.MintBurst}, maxPrincipals)}
	if err := s.begin(a); err != nil {
		return nil, err
	}
	return s, nil
}

// begin makes a, which may be nil, the current Authority, with an empty cache.
func (s *Store) begin(a *Authority) error {
	cache, err := lru.New[string, entry](s.capacity)
	if err != nil {
		return fmt.Errorf("making the leaf cache: %w", err)
	}
	s.current.Store(&generation{authority: a, cache: cache, flights: make(map[string]*flight)})
	return nil
}

// Leaf is LeafFor without a principal: for what the engine itself asks for.
func (s *Store) Leaf(ctx context.Context, host string) (*tls.Certificate, error) {
	return s.LeafFor(ctx, "", host)
}

// LeafFor returns the leaf for host, a canonical name or IP address that policy approved, and mints it if need be, out of the
// budget of principal. Callers that ask for one name at the same time share one mint; one whose ctx ends stops waiting for it.
// Errors wrap ErrHost, ErrNoAuthority, ErrNotPermitted, ErrExpired, ErrThrottled or ctx's.
func (s *Store) LeafFor(ctx context.Context, principal, host string) (*tls.Certificate, error) {
	g := s.current.Load()
	now := s.now()
	// No name that is not canonical is ever a key, so a hit needs no check.
	if e, ok := g.cache.Get(host); ok && e.fresh(now.UnixNano()) {
		s.hits.Add(1)
		return e.cert, nil
	}
	s.misses.Add(1)
	if _, err := parseHost(host); err != nil {
		return nil, err
	}
	if g.authority == nil { // before it costs the principal anything
		return nil, fmt.Errorf("%w: %s", ErrNoAuthority, host)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.join(ctx, g, principal, host)
}

// join waits for the mint of host that is under way, or is the one who does it.
func (s *Store) join(ctx context.Context, g *generation, principal, host string) (*tls.Certificate, error) {
	now := s.now()
	g.mu.Lock()
	if f, ok := g.flights[host]; ok {
		g.mu.Unlock()
		select {
		case <-f.done:
			return f.cert, f.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	e, known := g.cache.Peek(host)
	if known && e.fresh(now.UnixNano()) { // minted between the look into the cache and the lock
		g.mu.Unlock()
		return e.cert, nil
	}
	// Before there is a flight: who joins one is not refused for an empty budget of who began it.
	if !known {
		if ok, _ := s.budgets.Take(principal, now); !ok {
			g.mu.Unlock()
			s.throttled.Add(1)
			return nil, fmt.Errorf("%w: %s", ErrThrottled, host)
		}
	}
	f := &flight{done: make(chan struct{}), err: errors.New("minting a leaf did not finish")} // what a panic leaves to the others
	g.flights[host] = f
	g.mu.Unlock()

	defer func() {
		g.mu.Lock()
		delete(g.flights, host)
		g.mu.Unlock()
		close(f.done)
	}()
	// A mint is 70 µs of computing with nothing to wait for, so it runs here, in the caller's goroutine.
	f.cert, f.err = s.mint(g, host, now)
	return f.cert, f.err
}

func (s *Store) mint(g *generation, host string, now time.Time) (*tls.Certificate, error) {
	cert, err := g.authority.Mint(host, s.key, now)
	if err != nil {
		return nil, err
	}
	s.mints.Add(1)
	s.put(g, host, cert, now)
	return cert, nil
}

// put keeps cert for two thirds of what it has left. Counting from now and not from NotBefore keeps a leaf that a dying CA
// signed, and that is mostly Backdate, from being minted anew for each handshake.
func (s *Store) put(g *generation, host string, cert *tls.Certificate, now time.Time) {
	left := cert.Leaf.NotAfter.Sub(now)
	e := entry{cert: cert, from: cert.Leaf.NotBefore.UnixNano(), until: now.Add(left / 3 * 2).UnixNano()}
	if g.cache.Add(host, e) {
		s.evictions.Add(1)
	}
}

// Get returns the leaf that is cached for key and still fresh. With Set it makes the Store a CertsStorage of
// github.com/AdguardTeam/gomitmproxy/mitm.
func (s *Store) Get(key string) (*tls.Certificate, bool) {
	if e, ok := s.current.Load().cache.Get(key); ok && e.fresh(s.now().UnixNano()) {
		s.hits.Add(1)
		return e.cert, true
	}
	s.misses.Add(1)
	return nil, false
}

// Set caches cert for key. What could not be served is dropped: a key that is not canonical, a certificate that cannot be
// parsed, is not for that name, or is not valid now. Whose CA signed it is the caller's business.
func (s *Store) Set(key string, cert *tls.Certificate) {
	if _, err := parseHost(key); err != nil || cert == nil || len(cert.Certificate) == 0 {
		return
	}
	if cert.Leaf == nil {
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			return
		}
		withLeaf := *cert // the caller's is not written to: it may be in use
		withLeaf.Leaf = leaf
		cert = &withLeaf
	}
	now := s.now()
	if cert.Leaf.VerifyHostname(key) != nil || now.After(cert.Leaf.NotAfter) {
		return
	}
	s.put(s.current.Load(), key, cert, now)
}

// Swap makes a the Authority of every leaf from now on and drops those of the one before. Handshakes that already have a leaf
// go on with it. A nil a is ignored: the last good one stays.
func (s *Store) Swap(a *Authority) {
	if a == nil || a.sign == nil {
		return
	}
	s.swapping.Lock()
	defer s.swapping.Unlock()
	_ = s.begin(a) // fails only for a capacity that NewStore refused
}

// Withdraw drops the Authority and its leaves. Handshakes that already have a leaf go on with it; every other is refused with
// ErrNoAuthority until Swap brings another.
func (s *Store) Withdraw() {
	s.swapping.Lock()
	defer s.swapping.Unlock()
	_ = s.begin(nil) // fails only for a capacity that NewStore refused
}

// Usable says why no leaf for host can be had now, without minting one: ErrHost, ErrNoAuthority, ErrExpired or ErrNotPermitted. A
// caller can then refuse where its client still reads words. Nil promises nothing: time passes, and a budget may be used up.
func (s *Store) Usable(host string) error {
	g, now := s.current.Load(), s.now()
	if e, ok := g.cache.Peek(host); ok && e.fresh(now.UnixNano()) {
		return nil
	}
	addr, err := parseHost(host)
	switch {
	case err != nil:
		return err
	case g.authority == nil:
		return fmt.Errorf("%w: %s", ErrNoAuthority, host)
	case !g.authority.permits(host, addr):
		return fmt.Errorf("%w: %s, CA %q", ErrNotPermitted, host, g.authority.cert.Subject)
	}
	_, _, err = g.authority.validity(now)
	return err
}

// Reload calls load and swaps in what it returns. If load fails, the last good Authority and its leaves stay and the error
// is for readiness, metric and log; nothing is generated in its place. An Authority that Equals the current one changes nothing,
// so the leaves stay warm.
func (s *Store) Reload(load func() (*Authority, error)) error {
	s.swapping.Lock()
	defer s.swapping.Unlock()
	a, err := load()
	switch {
	case err != nil:
		return fmt.Errorf("reloading the CA, the last good one stays: %w", err)
	case a == nil || a.sign == nil:
		return errors.New("reloading the CA, the last good one stays: no CA was loaded")
	case a.Equal(s.Authority()):
		return nil
	}
	return s.begin(a)
}

// Authority is the current one, nil if there is none.
func (s *Store) Authority() *Authority { return s.current.Load().authority }

// Stats are counters since NewStore, and Size now.
type Stats struct {
	Hits, Misses uint64 // of Leaf and Get
	Mints        uint64
	Throttled    uint64 // mints that a budget refused
	Evictions    uint64 // leaves that had to make room
	Size         int    // leaves in the cache
}

// Stats reads the counters, each by itself.
func (s *Store) Stats() Stats {
	return Stats{
		Hits: s.hits.Load(), Misses: s.misses.Load(), Mints: s.mints.Load(),
		Throttled: s.throttled.Load(), Evictions: s.evictions.Load(), Size: s.current.Load().cache.Len(),
	}
}
