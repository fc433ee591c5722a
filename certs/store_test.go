package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// CertsStorage is gomitmproxy's interface, as it stands there.
type CertsStorage interface {
	Get(key string) (*tls.Certificate, bool)
	Set(key string, cert *tls.Certificate)
}

var _ CertsStorage = (*Store)(nil)

// clock is a time that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(noon.UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) forward(d time.Duration) { c.ns.Add(int64(d)) }

func store(t testing.TB, a *Authority, o StoreOptions) *Store {
	t.Helper()
	s, err := NewStore(a, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustLeaf(t testing.TB, s *Store, host string) *tls.Certificate {
	t.Helper()
	leaf, err := s.Leaf(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestStoreIsNotMadeWithoutItsParts(t *testing.T) {
	_, err := NewStore(&Authority{}, StoreOptions{})
	fails(t, err, "a CA without a key")
	a := authority(t, "P-256")
	for _, o := range []StoreOptions{{Capacity: -1}, {Capacity: maxCapacity + 1}, {MintRate: -1}, {MintRate: math.NaN()}, {MintBurst: -1}} {
		if _, err := NewStore(a, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if s := store(t, a, StoreOptions{}); s.capacity != DefaultCapacity || s.Authority() != a {
		t.Error("the zero options are not the defaults")
	}
	fails(t, (&Store{}).begin(a), "making the leaf cache")
}

func TestLeafIsMintedOnceAndThenCached(t *testing.T) {
	c := newClock()
	s := store(t, authority(t, "P-256"), StoreOptions{Now: c.now})
	first := mustLeaf(t, s, "a.test")
	if mustLeaf(t, s, "a.test") != first {
		t.Error("the second is another one")
	}
	if got, ok := s.Get("a.test"); !ok || got != first {
		t.Error("Get finds another one")
	}
	if _, ok := s.Get("b.test"); ok {
		t.Error("Get finds what was never minted")
	}
	if got, want := s.Stats(), (Stats{Hits: 2, Misses: 2, Mints: 1, Size: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if other := mustLeaf(t, s, "b.test"); other.PrivateKey != first.PrivateKey {
		t.Error("the leaf key is not the process's")
	}
}

func TestLeafIsRenewedAtTwoThirdsOfItsLife(t *testing.T) {
	c := newClock()
	s := store(t, authority(t, "P-256"), StoreOptions{Now: c.now, MintBurst: 1, MintRate: 1e-9})
	first := mustLeaf(t, s, "a.test")
	c.forward(15 * time.Hour)
	if mustLeaf(t, s, "a.test") != first {
		t.Error("renewed after 15 hours of 24")
	}
	c.forward(2 * time.Hour)
	if _, ok := s.Get("a.test"); ok {
		t.Error("Get hands out a leaf after 17 hours of 24")
	}
	second := mustLeaf(t, s, "a.test") // free of the bucket, which is empty
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("not renewed after 17 hours of 24")
	}
	c.forward(-time.Hour) // before the new leaf begins
	if third := mustLeaf(t, s, "a.test"); third.Leaf.NotBefore.After(c.now()) {
		t.Error("a leaf that is not valid yet, after the clock was set back")
	}
}

func TestK04DyingCAIsNotMintedAnewForEachHandshake(t *testing.T) {
	c := newClock()
	a := authority(t, "P-256")
	s := store(t, a, StoreOptions{Now: c.now})
	c.forward(a.NotAfter().Sub(noon) - time.Minute)
	first := mustLeaf(t, s, "a.test")
	if mustLeaf(t, s, "a.test") != first {
		t.Error("minted again at once")
	}
	c.forward(2 * time.Minute)
	if _, err := s.Leaf(t.Context(), "a.test"); !errors.Is(err, ErrExpired) {
		t.Errorf("after the end of the CA: %v", err)
	}
}

func TestSingleFlight(t *testing.T) {
	a := authority(t, "P-256")
	const n = 20
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	good := a.sign
	a.sign = func(tbs []byte) ([]byte, error) {
		once.Do(func() { close(begun) })
		<-release
		return good(tbs)
	}
	s := store(t, a, StoreOptions{Now: newClock().now})
	got := make(chan *tls.Certificate, n)
	for range n {
		go func() {
			leaf, err := s.Leaf(context.Background(), "a.test")
			if err != nil {
				t.Error(err)
			}
			got <- leaf
		}()
	}
	<-begun
	for s.Stats().Misses < n { // the others are on their way to the flight
		runtime.Gosched()
	}
	// One who cannot wait is not held up by the mint.
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := s.Leaf(ctx, "a.test")
		gone <- err
	}()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left: %v", err)
	}
	close(release)
	first := <-got
	for range n - 1 {
		if <-got != first {
			t.Error("two goroutines got two leaves")
		}
	}
	if st := s.Stats(); st.Mints != 1 {
		t.Errorf("%d mints for %d goroutines", st.Mints, n)
	}
}

func TestSingleFlightSharesTheErrorAndForgetsIt(t *testing.T) {
	a := authority(t, "P-256")
	good := a.sign
	a.sign = func([]byte) ([]byte, error) { panic("out of order") }
	s := store(t, a, StoreOptions{Now: newClock().now})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is swallowed")
			}
		}()
		_, _ = s.Leaf(t.Context(), "a.test")
	}()
	a.sign = func([]byte) ([]byte, error) { return nil, errors.New("out of order") }
	_, err := s.Leaf(t.Context(), "a.test")
	fails(t, err, "out of order")
	a.sign = good
	mustLeaf(t, s, "a.test")
}

func TestJoinAfterAnotherOneFinished(t *testing.T) {
	c := newClock()
	s := store(t, authority(t, "P-256"), StoreOptions{Now: c.now})
	first := mustLeaf(t, s, "a.test")
	if got, err := s.join(t.Context(), s.current.Load(), "", "a.test"); err != nil || got != first {
		t.Errorf("minted again: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Leaf(ctx, "b.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("minted for nobody: %v", err)
	}
}

func TestR05FloodOfNamesIsBoundedAndCostsTheKnownNothing(t *testing.T) {
	c := newClock()
	s := store(t, authority(t, "Ed25519"), StoreOptions{Now: c.now, Capacity: 8, MintRate: 2, MintBurst: 10})
	minted := func(n int) (ok int) {
		for i := range n {
			switch _, err := s.Leaf(t.Context(), fmt.Sprintf("h%d-%d.test", c.now().UnixNano(), i)); {
			case err == nil:
				ok++
			case !errors.Is(err, ErrThrottled):
				t.Fatal(err)
			}
		}
		return ok
	}
	if n := minted(100); n != 10 {
		t.Errorf("%d of a burst of 10", n)
	}
	if st := s.Stats(); st.Size != 8 || st.Throttled != 90 || st.Evictions != 2 {
		t.Errorf("%+v", st)
	}
	c.forward(3 * time.Second)
	if n := minted(100); n != 6 {
		t.Errorf("%d after 3 s at 2 a second", n)
	}
	c.forward(-time.Hour)
	if n := minted(10); n != 0 {
		t.Errorf("%d after the clock went back", n)
	}
	c.forward(time.Hour)
	c.forward(time.Hour)
	if n := minted(100); n != 10 {
		t.Errorf("%d after an hour, of a burst of 10", n)
	}
}

func TestR05FloodOfOnePrincipalIsRefusedToThatOneAlone(t *testing.T) {
	c := newClock()
	s := store(t, authority(t, "Ed25519"), StoreOptions{Now: c.now, MintRate: 1, MintBurst: 3})
	mints := func(principal string, names ...string) (ok int) {
		for _, name := range names {
			switch _, err := s.LeafFor(t.Context(), principal, name); {
			case err == nil:
				ok++
			case !errors.Is(err, ErrThrottled):
				t.Fatal(err)
			}
		}
		return ok
	}
	if n := mints("loud", "a.test", "b.test", "c.test", "d.test", "e.test"); n != 3 {
		t.Errorf("%d names for the loud one, whose burst is 3", n)
	}
	if n := mints("quiet", "d.test", "e.test"); n != 2 {
		t.Errorf("%d of 2 names for the quiet one", n)
	}
	if n := mints("loud", "a.test", "d.test"); n != 2 {
		t.Errorf("%d of 2 names that are in the cache for the loud one", n)
	}
	c.forward(time.Second)
	if n := mints("loud", "f.test", "g.test"); n != 1 {
		t.Errorf("%d names for the loud one, a second later", n)
	}
}

func TestSetAndGet(t *testing.T) {
	c := newClock()
	a := authority(t, "P-256")
	s := store(t, a, StoreOptions{Now: c.now})
	leaf, err := a.Mint("a.test", leafKey(t), noon)
	if err != nil {
		t.Fatal(err)
	}
	bare := &tls.Certificate{Certificate: leaf.Certificate, PrivateKey: leaf.PrivateKey}
	s.Set("a.test", bare)
	if bare.Leaf != nil {
		t.Error("the caller's certificate was written to")
	}
	if got, ok := s.Get("a.test"); !ok || got.Leaf == nil || got.PrivateKey != leaf.PrivateKey {
		t.Error("what was set is not there")
	}
	s.Set("a.test", leaf)
	if got := mustLeaf(t, s, "a.test"); got != leaf {
		t.Error("Leaf does not use what was set")
	}
	for name, cert := range map[string]*tls.Certificate{
		"nil":               nil,
		"empty":             {},
		"not a certificate": {Certificate: [][]byte{[]byte("x")}},
		"for another name":  leaf,
	} {
		s.Set("b.test", cert)
		if _, ok := s.Get("b.test"); ok {
			t.Errorf("%s is taken", name)
		}
	}
	c.forward(48 * time.Hour)
	s.Set("a.test", leaf)
	if _, ok := s.Get("a.test"); ok {
		t.Error("an expired leaf is taken")
	}
}

func TestK02SwapUnderLoad(t *testing.T) {
	rootKey := testKey(t, "P-256")
	root := sign(t, caOf("root"), rootKey, nil, nil)
	next := func(i int) *Authority {
		key := testKey(t, "P-256")
		a, err := New([]*x509.Certificate{sign(t, caOf(fmt.Sprint("intermediate ", i)), key, root, rootKey)}, key, []*x509.Certificate{root}, noon)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	s := store(t, next(0), StoreOptions{Now: newClock().now, Capacity: 16, MintRate: 1e9, MintBurst: 1e9})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				host := fmt.Sprintf("h%d.test", (g+i)%32)
				leaf, err := s.Leaf(context.Background(), host)
				if err != nil {
					t.Error(err)
					return
				}
				signer, err := x509.ParseCertificate(leaf.Certificate[1])
				if err != nil || leaf.Leaf.CheckSignatureFrom(signer) != nil || leaf.Leaf.VerifyHostname(host) != nil {
					t.Errorf("%s: the leaf does not go with what is sent behind it: %v", host, err)
					return
				}
			}
		})
	}
	var last *Authority
	for i := range 20 {
		last = next(i + 1)
		s.Swap(last)
		leaf := mustLeaf(t, s, "h1.test")
		if signer, err := x509.ParseCertificate(leaf.Certificate[1]); err != nil || !signer.Equal(last.cert) {
			t.Errorf("after swap %d a leaf of the one before is handed out: %v", i, err)
		}
	}
	close(stop)
	wg.Wait()
	s.Swap(nil)
	s.Swap(&Authority{})
	if s.Authority() != last {
		t.Error("nothing was swapped in")
	}
}

func TestK03ReloadKeepsTheLastGoodOne(t *testing.T) {
	a, b := authority(t, "P-256"), authority(t, "P-384")
	s := store(t, a, StoreOptions{Now: newClock().now})
	first := mustLeaf(t, s, "a.test")
	is := func(want *Authority, leaf *tls.Certificate) {
		t.Helper()
		if got := mustLeaf(t, s, "a.test"); s.Authority() != want || (got == leaf) != (want == a) {
			t.Error("the wrong CA signs")
		}
	}
	dir := t.TempDir()
	fails(t, s.Reload(func() (*Authority, error) { return LoadDir(dir, noon) }), "the last good one stays")
	is(a, first)
	fails(t, s.Reload(func() (*Authority, error) { return nil, nil }), "no CA was loaded")
	is(a, first)
	same := *a
	if err := s.Reload(func() (*Authority, error) { return &same, nil }); err != nil {
		t.Error(err)
	}
	is(a, first)
	if err := s.Reload(func() (*Authority, error) { return b, nil }); err != nil {
		t.Error(err)
	}
	is(b, first)
}

func BenchmarkCachedLeaf(b *testing.B) {
	a, err := NewEphemeral(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	s, ctx := store(b, a, StoreOptions{}), b.Context()
	mustLeaf(b, s, "api.example.com")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Leaf(ctx, "api.example.com"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCachedLeafDoesNotAllocate(t *testing.T) {
	s := store(t, authority(t, "P-256"), StoreOptions{Now: newClock().now})
	mustLeaf(t, s, "a.test")
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = s.Leaf(ctx, "a.test") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAStoreWithoutAnAuthorityMintsNothing(t *testing.T) {
	c := newClock()
	s, err := NewStore(nil, StoreOptions{Now: c.now, MintBurst: 1})
	if err != nil {
		t.Fatal(err)
	}
	refuses := func() {
		t.Helper()
		for range 3 { // nor does it cost the budget of who asks
			if _, err := s.Leaf(t.Context(), "a.test"); !errors.Is(err, ErrNoAuthority) {
				t.Fatalf("%v", err)
			}
		}
		if err := s.Usable("a.test"); !errors.Is(err, ErrNoAuthority) || s.Authority() != nil {
			t.Fatalf("usable: %v", err)
		}
	}
	refuses()
	a := authority(t, "P-256")
	s.Swap(a)
	held := mustLeaf(t, s, "a.test")
	if err := s.Usable("a.test"); err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, "a.test", held, a.Roots(), tls.VersionTLS13); err != nil {
		t.Error(err)
	}
	s.Withdraw()
	refuses()
	if err := s.Reload(func() (*Authority, error) { return a, nil }); err != nil || s.Authority() != a {
		t.Errorf("a reload after it: %v", err)
	}
	c.forward(a.NotAfter().Sub(c.now()) + time.Second)
	if err := s.Usable("a.test"); !errors.Is(err, ErrExpired) {
		t.Errorf("after its end: %v", err)
	}
}

func TestUsableSaysWhatALeafWouldBeRefusedFor(t *testing.T) {
	c := newClock()
	s := store(t, constrained(t, "a.test"), StoreOptions{Now: c.now})
	for host, want := range map[string]error{"a.test": nil, "x.a.test": nil, "b.test": ErrNotPermitted, "192.0.2.1": ErrNotPermitted, "A.test": ErrHost} {
		_, minted := s.Leaf(t.Context(), host)
		if err := s.Usable(host); !errors.Is(err, want) || !errors.Is(minted, want) {
			t.Errorf("%s: %v, and a leaf: %v", host, err, minted)
		}
	}
}
