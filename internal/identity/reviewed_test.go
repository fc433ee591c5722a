package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/bucket"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
)

// voucher is who vouches: it knows tokens and addresses, and writes down what it
// was asked.
type voucher struct {
	mu    sync.Mutex
	knows map[string]Principal // :: token or address; guarded by mu
	asked []string             // guarded by mu
	hang  chan struct{}
}

func (v *voucher) ask(ctx context.Context, token string, addr netip.Addr) (Principal, error) {
	what := token
	if token == "" {
		what = addr.String()
	}
	if v.hang != nil {
		select {
		case <-v.hang:
		case <-ctx.Done():
			return Principal{}, ctx.Err()
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = append(v.asked, what)
	who, ok := v.knows[what]
	if !ok {
		return Principal{}, errors.New("unknown_caller: no pod of this namespace")
	}
	return who, nil
}

func (v *voucher) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

var bot = Principal{Namespace: "support", ServiceAccount: "bot", Pod: "bot-1"}

func from(addr, credentials string) intake.Flow {
	return intake.Flow{Kind: intake.Connect, Client: netip.AddrPortFrom(netip.MustParseAddr(addr), 40000), ProxyAuthorization: credentials}
}

func basic(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAGatewayKnowsItsCallersByTokenOrAddress(t *testing.T) {
	v := &voucher{knows: map[string]Principal{"good": bot, "10.0.0.1": bot, "half": {Namespace: "support"}}}
	of := Reviewed(v.ask, nil)
	for _, row := range []struct {
		what string
		flow intake.Flow
		want string // of the error; "": it is bot's
	}{
		{"a token", from("10.0.0.9", "Bearer good"), ""},
		{"a token, in other letters", from("10.0.0.9", "bearer  good "), ""},
		{"a token as password", from("10.0.0.9", basic("aegrail:good")), ""},
		{"no token, from an address that is vouched for", from("10.0.0.1", ""), ""},
		{"the same address as IPv6 spells it", from("::ffff:10.0.0.1", ""), ""},
		{"a bad token, from that address", from("10.0.0.1", "Bearer bad"), "unknown_caller"},
		{"no token, from elsewhere", from("10.0.0.9", ""), "unknown_caller"},
		{"a user without a password", from("10.0.0.1", basic("good")), "want a token"},
		{"an empty token", from("10.0.0.1", "Bearer "), "want a token"},
		{"a token that is a book", from("10.0.0.1", "Bearer "+strings.Repeat("x", maxToken+1)), "want a token"},
		{"Basic that is not base64", from("10.0.0.1", "Basic !"), "without base64"},
		{"another scheme", from("10.0.0.1", "Digest good"), "want Bearer TOKEN"},
		{"somebody without an account", from("10.0.0.9", "Bearer half"), "nobody vouches"},
	} {
		got, err := of(row.flow)
		if row.want == "" && (got != bot || err != nil) || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || got != (Principal{})) {
			t.Errorf("%s: %+v, %v; want %q", row.what, got, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "good") {
			t.Errorf("%s: the error holds the token: %v", row.what, err)
		}
	}
}

func TestAnAnswerIsKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voucher{knows: map[string]Principal{"good": bot, "10.0.0.1": bot}}
		of := Reviewed(v.ask, nil)
		for _, row := range []struct {
			after time.Duration
			flow  intake.Flow
			asked int // in all
		}{
			{0, from("10.0.0.1", "Bearer good"), 1},
			{59 * time.Second, from("10.0.0.2", "Bearer good"), 1},
			{2 * time.Second, from("10.0.0.2", "Bearer good"), 2},
			{0, from("10.0.0.1", ""), 3},
			{14 * time.Second, from("10.0.0.1", ""), 3},
			{2 * time.Second, from("10.0.0.1", ""), 4},
			{0, from("10.0.0.1", "Bearer bad"), 5},
			{time.Second, from("10.0.0.1", "Bearer bad"), 5},
			{2 * time.Second, from("10.0.0.1", "Bearer bad"), 6},
		} {
			time.Sleep(row.after)
			_, _ = of(row.flow)
			if n := v.count(); n != row.asked {
				t.Errorf("%v after %s: %d questions, want %d", row.flow.Client, row.after, n, row.asked)
			}
		}
	})
}

func TestCallersThatComeTogetherAreAskedAboutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voucher{knows: map[string]Principal{"good": bot}, hang: make(chan struct{})}
		of := Reviewed(v.ask, nil)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if who, err := of(from("10.0.0.1", "Bearer good")); who != bot || err != nil {
					t.Errorf("%v, %v", who, err)
				}
			})
		}
		synctest.Wait()
		close(v.hang)
		all.Wait()
		if n := v.count(); n != 1 {
			t.Errorf("%d questions", n)
		}
	})
}

func TestAVoucherThatHangsIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voucher{hang: make(chan struct{})}
		begun := time.Now()
		_, err := Reviewed(v.ask, nil)(from("10.0.0.1", "Bearer good"))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrLater) || time.Since(begun) != askTime {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}

func TestAFloodOfGuessesCostsTheAddressThatMakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voucher{knows: map[string]Principal{"good": bot}}
		of := Reviewed(v.ask, nil)
		if _, err := of(from("10.0.0.1", "Bearer good")); err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			_, _ = of(from("10.0.0.1", fmt.Sprintf("Bearer guess %d", i)))
		}
		if n := v.count(); n != askBurst {
			t.Errorf("%d questions, want %d", n, askBurst)
		}
		if _, err := of(from("10.0.0.1", "Bearer another")); !errors.Is(err, ErrAsking) {
			t.Errorf("%v", err)
		}
		if who, err := of(from("10.0.0.1", "Bearer good")); who != bot || err != nil {
			t.Errorf("what is known is free: %v", err)
		}
		if _, err := of(from("10.0.0.2", "Bearer guess")); err == nil || errors.Is(err, ErrAsking) {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := of(from("10.0.0.1", "Bearer one more")); errors.Is(err, ErrAsking) {
			t.Error("nothing comes back")
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voucher{}
		r := &reviews{ask: v.ask, now: time.Now, answers: make(map[caller]*answer), asks: bucket.New[netip.Addr](bucket.Rate{PerSecond: askRate, Burst: askBurst}, maxAskers)}
		addr := netip.MustParseAddr("10.0.0.0")
		for range maxAskers + 2000 {
			addr = addr.Next()
			_, _ = r.of(from(addr.String(), ""))
		}
		if len(r.answers) > maxAnswers || r.asks.Len() > maxAskers {
			t.Errorf("%d answers, %d askers", len(r.answers), r.asks.Len())
		}
		time.Sleep(time.Minute)
		_, _ = r.of(from("10.9.9.9", ""))
		if len(r.answers) > 1 || r.asks.Len() > 2 {
			t.Errorf("a minute later %d answers, %d askers", len(r.answers), r.asks.Len())
		}
	})
}
