package link

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/arpitcoder/aegrail-engine/certs"
)

// engine writes down what a Client has it do, in words.
type engine struct {
	mu     sync.Mutex
	did    []string         // guarded by mu
	wrong  map[Part]string  // what was reported last; guarded by mu
	ca     *certs.Authority // guarded by mu
	broken error            // of Compile; guarded by mu
}

func newEngine() *engine { return &engine{wrong: map[Part]string{}} }

func (e *engine) do(format string, args ...any) { e.did = append(e.did, fmt.Sprintf(format, args...)) }

func (e *engine) Compile(u Update) (func(), error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if strings.Contains(string(u.YAML), "broken") {
		return nil, errors.New("line 1: unknown key")
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.do("policy %s of %s/%s", u.Revision, u.Pod.Namespace, u.Pod.ServiceAccount)
	}, e.broken
}

func (e *engine) Authority(a *certs.Authority) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ca = a
	switch {
	case a == nil:
		e.do("no authority")
	case len(a.Certificate().PermittedDNSDomains) == 0:
		e.do("authority for all")
	default:
		e.do("authority for %s", strings.Join(a.Certificate().PermittedDNSDomains, " "))
	}
}

func (e *engine) Report(part Part, _ bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if delete(e.wrong, part); err != nil {
		e.wrong[part] = err.Error()
	}
}

// story is what was done since the last story.
func (e *engine) story() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	did := strings.Join(e.did, ", ")
	e.did = nil
	return did
}

func (e *engine) fault(part Part) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wrong[part]
}

func (e *engine) authority() *certs.Authority {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ca
}

// kept is a keeper in a bubble of its own time, whose control is a function
// call away.
type kept struct {
	*keeper
	*control
	engine *engine
	asked  atomic.Int32
}

func keep(t *testing.T, c *control) *kept {
	t.Helper()
	k := &kept{control: c, engine: newEngine()}
	k.keeper = newKeeper(k.engine, ClientOptions{Patience: 30 * time.Second, Away: time.Minute}, func(ctx context.Context, a *attempt, revision string) (signed, error) {
		k.asked.Add(1)
		got, err := c.Sign(ctx, bot, a.request, revision)
		if err != nil {
			return signed{}, err
		}
		authority, err := a.authority(got.Chain, nil, time.Now())
		if err != nil {
			return signed{}, err
		}
		return signed{template: a.template, authority: authority, renewAt: renewal(authority.Certificate(), got.RenewAfter, time.Now())}, nil
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return k
}

// gets has control say that revision allows hosts; none: nothing.
func (k *kept) gets(t *testing.T, revision string, hosts ...string) {
	t.Helper()
	u := &Update{Pod: bot, Policy: Policy{Revision: revision}}
	if len(hosts) == 1 && hosts[0] == "*" {
		u.Template = permits(t)
	} else if len(hosts) > 0 {
		u.Template = permits(t, hosts...)
	}
	k.tell(event{update: u})
	synctest.Wait()
}

func (k *kept) did(t *testing.T, what, want string) {
	t.Helper()
	synctest.Wait()
	if got := k.engine.story(); got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (k *kept) set(change func(*control)) {
	k.control.mu.Lock()
	defer k.control.mu.Unlock()
	change(k.control)
}

// bubble runs f in a bubble of synctest, with a control made in its time.
func bubble(t *testing.T, f func(t *testing.T, k *kept)) {
	synctest.Test(t, func(t *testing.T) { f(t, keep(t, newControl(t))) })
}

func TestAPolicyThatGainsAHostWaitsForItsAuthority(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.gets(t, "r1", "a.example")
		k.did(t, "the first", "authority for a.example, policy r1 of support/bot")
		k.gets(t, "r2", "a.example", "b.example")
		k.did(t, "a host more", "authority for a.example b.example, policy r2 of support/bot")
		k.gets(t, "r3", "b.example")
		k.did(t, "a host less", "policy r3 of support/bot, authority for b.example")
		k.gets(t, "r4", "b.example")
		k.did(t, "other rules", "policy r4 of support/bot")
		k.gets(t, "r5", "*")
		k.did(t, "every host", "authority for all, policy r5 of support/bot")
		k.gets(t, "r6", "a.example")
		k.did(t, "one of them", "policy r6 of support/bot, authority for a.example")
		k.gets(t, "r7")
		k.did(t, "none", "policy r7 of support/bot, no authority")
		k.gets(t, "r7")
		k.did(t, "the same again", "")
	})
}

func TestADenialDoesNotWaitForASignatureForEver(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.gets(t, "r1", "a.example")
		k.did(t, "the first", "authority for a.example, policy r1 of support/bot")
		k.set(func(c *control) { c.fault = errors.New("cert-manager is away") })
		k.gets(t, "r2", "a.example", "b.example")
		k.did(t, "at once", "")
		if got := k.engine.fault(PartCA); !strings.Contains(got, "cert-manager is away") || !strings.Contains(got, "signs until") {
			t.Errorf("reported: %q", got)
		}
		time.Sleep(20 * time.Second)
		k.gets(t, "r3", "a.example", "b.example", "c.example") // does not begin the wait anew
		k.did(t, "after 20 s", "")
		time.Sleep(11 * time.Second)
		k.did(t, "after 31 s", "policy r3 of support/bot")
		if n := k.asked.Load(); n < 5 || n > 30 {
			t.Errorf("control was asked %d times in half a minute", n)
		}
		k.set(func(c *control) { c.fault = nil })
		time.Sleep(time.Minute)
		k.did(t, "in the end", "authority for a.example b.example c.example")
		if got := k.engine.fault(PartCA); got != "" {
			t.Errorf("still reported: %q", got)
		}
	})
}

func TestAnAuthorityIsRenewedAtTwoThirdsOfItsLife(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.gets(t, "r1", "a.example")
		k.did(t, "the first", "authority for a.example, policy r1 of support/bot")
		first := k.engine.authority()
		time.Sleep(15 * time.Hour)
		k.did(t, "after 15 h", "")
		time.Sleep(time.Hour)
		k.did(t, "after 16 h", "authority for a.example")
		second := k.engine.authority()
		if key, ok := first.Certificate().PublicKey.(*ecdsa.PublicKey); !ok || key.Equal(second.Certificate().PublicKey) {
			t.Error("it is for the same key")
		}
	})
}

func TestWithControlAwayTheLastGoodStaysAndItIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.tell(event{away: errors.New("connection refused")})
		synctest.Wait()
		if got := k.engine.fault(PartControl); !strings.Contains(got, "connection refused") {
			t.Errorf("an engine that has heard nothing says: %q", got)
		}
		k.gets(t, "r1", "a.example")
		if got := k.engine.fault(PartControl); got != "" {
			t.Errorf("with control there: %q", got)
		}
		k.set(func(c *control) { c.fault = errors.New("connection refused") })
		k.tell(event{away: errors.New("connection reset")})
		time.Sleep(50 * time.Second)
		if got := k.engine.fault(PartControl); got != "" {
			t.Errorf("a restart of control is no news: %q", got)
		}
		time.Sleep(11 * time.Second)
		if got := k.engine.fault(PartControl); !strings.Contains(got, "connection reset") {
			t.Errorf("after a minute: %q", got)
		}
		k.did(t, "up to here", "authority for a.example, policy r1 of support/bot")
		time.Sleep(17 * time.Hour)
		if got := k.engine.fault(PartCA); !strings.Contains(got, "connection refused") {
			t.Errorf("when it should have been renewed: %q", got)
		}
		k.did(t, "meanwhile", "")
	})
}

func TestWhatControlCannotMeanChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.gets(t, "r1", "a.example")
		k.did(t, "the first", "authority for a.example, policy r1 of support/bot")
		good := Update{Pod: bot, Policy: Policy{Revision: "r2", Template: permits(t, "a.example")}}
		for _, row := range []struct {
			what, want string
			edit       func(*Update)
		}{
			{"a policy that does not compile", "unknown key", func(u *Update) { u.YAML = []byte("broken") }},
			{"nobody's policy", "whose pod", func(u *Update) { u.Pod = Pod{} }},
			{"no revision", "revision of 0 bytes", func(u *Update) { u.Revision = "" }},
			{"a revision that is a text", "revision of 200 bytes", func(u *Update) { u.Revision = strings.Repeat("r", 200) }},
			{"a revision with a line in it", "can be printed", func(u *Update) { u.Revision = "r2\nready" }},
			{"a template of two minds", "has constraints", func(u *Update) { u.Template.Unconstrained = true }},
		} {
			u := good
			row.edit(&u)
			k.tell(event{update: &u})
			k.did(t, row.what, "")
			if got := k.engine.fault(PartPolicy); !strings.Contains(got, row.want) {
				t.Errorf("%s: reported %q, want %q", row.what, got, row.want)
			}
		}
		k.gets(t, "r1", "a.example")
		k.did(t, "the first again", "")
		if got := k.engine.fault(PartPolicy); got != "" {
			t.Errorf("with the good one back: %q", got)
		}
	})
}

func TestAPolicyThatIsReplacedWhileItWaitsIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.set(func(c *control) { c.hang = make(chan struct{}) })
		k.gets(t, "r1", "a.example")
		k.set(func(c *control) { c.hang = nil })
		k.gets(t, "r2", "b.example")
		k.did(t, "the second alone", "authority for b.example, policy r2 of support/bot")
		if got := k.engine.fault(PartCA); got != "" {
			t.Errorf("reported: %q", got)
		}
	})
}

func TestAHangingControlEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		k.set(func(c *control) { c.hang = make(chan struct{}) })
		k.gets(t, "r1", "a.example")
		time.Sleep(31 * time.Second)
		k.did(t, "after half a minute", "policy r1 of support/bot")
		if got := k.engine.fault(PartCA); !strings.Contains(got, "none yet") {
			t.Errorf("an engine without an authority says %q", got)
		}
	})
}

// A pod has one authority in half a day, whatever became of the answer: the
// same request is sent again, until what was signed for it may be over.
func TestAnAnswerThatWasLostIsAskedForAgainWithTheSameRequest(t *testing.T) {
	bubble(t, func(t *testing.T, k *kept) {
		var mu sync.Mutex
		var requests []string
		k.sign = func(_ context.Context, a *attempt, _ string) (signed, error) {
			mu.Lock()
			defer mu.Unlock()
			if n := len(requests); n == 0 || requests[n-1] != string(a.request) {
				requests = append(requests, string(a.request))
			}
			return signed{}, errors.New("the answer was lost")
		}
		seen := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(requests)
		}
		k.gets(t, "r1", "a.example")
		time.Sleep(11 * time.Hour)
		if n := seen(); n != 1 {
			t.Errorf("in 11 hours %d requests were sent, want one again and again", n)
		}
		time.Sleep(2 * time.Hour)
		if n := seen(); n != 2 {
			t.Errorf("in 13 hours %d requests were sent, want another after 12", n)
		}
	})
}

func TestRetriesAreSpreadAndBounded(t *testing.T) {
	seen := map[time.Duration]bool{}
	for n := range 100 {
		d := retry(n, time.Minute)
		if d > time.Minute || d < retryLeast/2 || n > 8 && d < 30*time.Second {
			t.Errorf("after %d failures: %s", n, d)
		}
		seen[d] = true
	}
	if len(seen) < 90 {
		t.Errorf("a hundred retries have %d lengths", len(seen))
	}
}
