package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/bucket"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// Ask says whose a connection is that comes with a token, or where that is ""
// from an address. It returns when ctx ends.
type Ask func(ctx context.Context, token string, addr netip.Addr) (Principal, error)

// How long an answer is believed. A token outlives its pod for that long; an
// address may be another pod's sooner than that.
const (
	tokenLife   = time.Minute
	addressLife = 15 * time.Second
	refusalLife = 2 * time.Second
)

// What one address may cost: askBurst questions at once, then askRate a second.
// An answer that is known costs nothing.
const (
	askBurst = 30
	askRate  = 3
	askTime  = 5 * time.Second // for one question
)

const (
	maxToken   = 16 << 10
	maxAnswers = 4096 // pods of a namespace
	maxAskers  = 4096 // addresses
)

// ErrLater is in the error of a connection whose owner is not known now, and may
// be in a while: nothing was decided about it.
var ErrLater = errors.New("try again")

// ErrAsking is what an address gets that asks too much. It is an ErrLater.
var ErrAsking = fmt.Errorf("too many unknown callers from this address: %w", ErrLater)

// Reviewed returns a Func for a gateway, which serves many agents: ask says whose
// a connection is, and its answer is kept for a minute. A connection that brings
// a token is whose the token says or nobody's; only one without a token goes by
// its address. now is the clock; nil: time.Now.
func Reviewed(ask Ask, now func() time.Time) Func {
	if now == nil {
		now = time.Now
	}
	r := &reviews{ask: ask, now: now, answers: make(map[caller]*answer), asks: bucket.New[netip.Addr](bucket.Rate{PerSecond: askRate, Burst: askBurst}, maxAskers)}
	return r.of
}

// caller is what is known of a connection: the hash of its token, so that no
// token is kept, or its address.
type caller struct {
	token [sha256.Size]byte
	addr  netip.Addr
}

// answer is what became of a question; who and err are written before done is
// closed, until under the lock of reviews.
type answer struct {
	done  chan struct{}
	until time.Time // zero while it is asked
	who   Principal
	err   error
}

type reviews struct {
	ask  Ask
	now  func() time.Time
	asks *bucket.Buckets[netip.Addr]

	mu      sync.Mutex
	answers map[caller]*answer // guarded by mu
	swept   time.Time          // guarded by mu
}

func (r *reviews) of(flow intake.Flow) (Principal, error) {
	addr := flow.Client.Addr().Unmap()
	token, err := tokenOf(flow.ProxyAuthorization)
	if err != nil {
		return Principal{}, err
	}
	key, life := caller{addr: addr}, addressLife
	if token != "" {
		key, life = caller{token: sha256.Sum256([]byte(token))}, tokenLife
	}
	a, mine, err := r.answer(key, addr)
	if err != nil {
		return Principal{}, err
	}
	if mine {
		r.find(a, token, addr, life)
	}
	<-a.done // askTime at most
	return a.who, a.err
}

// answer is what is known of key, or a new answer that the caller has to find.
func (r *reviews) answer(key caller, addr netip.Addr) (a *answer, mine bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if a = r.answers[key]; a != nil && (a.until.IsZero() || now.Before(a.until)) {
		return a, false, nil
	}
	if ok, _ := r.asks.Take(addr, now); !ok {
		return nil, false, ErrAsking
	}
	r.sweep(now)
	for k, old := range r.answers {
		if len(r.answers) < maxAnswers {
			break
		}
		if !old.until.IsZero() {
			delete(r.answers, k) // any: who comes back is asked about again
		}
	}
	a = &answer{done: make(chan struct{}), err: fmt.Errorf("asking whose the connection is did not finish: %w", ErrLater)}
	r.answers[key] = a
	return a, true, nil
}

// sweep forgets what is over, at most once a second: a flood must not make each
// of its callers cost a look at all others. r.mu is held.
func (r *reviews) sweep(now time.Time) {
	if len(r.answers) < maxAnswers || now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	for k, old := range r.answers {
		if !old.until.IsZero() && !now.Before(old.until) {
			delete(r.answers, k)
		}
	}
}

// find asks, once for all that wait for a.
func (r *reviews) find(a *answer, token string, addr netip.Addr, life time.Duration) {
	defer func() {
		if a.err != nil {
			life = refusalLife
		}
		r.mu.Lock()
		a.until = r.now().Add(life)
		r.mu.Unlock()
		close(a.done)
	}()
	ctx, done := context.WithTimeout(context.Background(), askTime)
	defer done()
	who, err := r.ask(ctx, token, addr)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, ErrLater)
	}
	if err == nil && (who.Namespace == "" || who.ServiceAccount == "") {
		err = errors.New("nobody vouches for whose the connection is")
	}
	if err != nil {
		a.err = fmt.Errorf("whose the connection is: %w", err)
		return
	}
	a.who, a.err = who, nil
}

// tokenOf reads the credentials of a Proxy-Authorization field: Bearer, or Basic
// with the token as password, which is what a proxy's URL can hold. "" is none.
func tokenOf(field string) (string, error) {
	if field == "" {
		return "", nil
	}
	scheme, rest, _ := strings.Cut(field, " ")
	token := strings.TrimSpace(rest)
	if strings.EqualFold(scheme, "Basic") {
		plain, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return "", errors.New("Proxy-Authorization: Basic without base64")
		}
		_, token, _ = strings.Cut(string(plain), ":")
	} else if !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("Proxy-Authorization: want Bearer TOKEN, or Basic with the token as password")
	}
	if token == "" || len(token) > maxToken {
		return "", fmt.Errorf("Proxy-Authorization: want a token of 1 to %d bytes", maxToken)
	}
	return token, nil
}
