package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pod is an engine that runs a Client.
type pod struct {
	*engine
	client *Client
	stop   func()

	mu    sync.Mutex
	token string // guarded by mu
	reads int    // of the token; guarded by mu
}

func (p *pod) has(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
}

// runs starts a Client of s, which runs until the test ends.
func runs(t *testing.T, s *served, edit func(*ClientOptions), more ...func(*Client)) *pod {
	t.Helper()
	p := &pod{engine: newEngine(), token: "its token"}
	o := ClientOptions{
		Address: s.address, Roots: s.pool, Trusted: []*x509.Certificate{s.root}, Version: "test", Away: time.Millisecond,
		Token: func() (string, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.reads++
			return p.token + "\n", nil
		},
	}
	if edit != nil {
		edit(&o)
	}
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	p.client = c
	for _, edit := range more {
		edit(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx, p.engine)
	}()
	p.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(p.stop)
	return p
}

// until polls for what another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !enginetest.Eventually(ok) {
		t.Fatalf("in vain: %s", what)
	}
}

// told waits for a story.
func (p *pod) told(t *testing.T, want string) {
	t.Helper()
	var story []string
	until(t, want, func() bool {
		if s := p.story(); s != "" {
			story = append(story, s)
		}
		return strings.Join(story, ", ") == want
	})
}

const firstStory = "authority for api.example.com, policy rev-1 of support/bot"

func TestAnEngineFollowsControl(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	p := runs(t, s, nil)
	p.told(t, firstStory)
	s.rules(bot.UID, Policy{Revision: "rev-2", Template: permits(t, "api.example.com", "b.example")})
	p.told(t, "authority for b.example api.example.com, policy rev-2 of support/bot")
	s.rules(bot.UID, Policy{Revision: "rev-3"})
	p.told(t, "policy rev-3 of support/bot, no authority")
	if r := s.refusals(); len(r) > 0 {
		t.Errorf("refused: %v", r)
	}
}

func TestControlIsDialledAsItIsSaidAndItsNameWithIt(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	var dialled atomic.Pointer[string]
	p := runs(t, s, func(o *ClientOptions) {
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Store(&address)
			return new(net.Dialer).DialContext(ctx, network, s.address)
		}
	})
	p.told(t, firstStory)
	if got := dialled.Load(); got == nil || *got != "localhost:"+port {
		t.Errorf("dialled %v; it is the dialler's to find the name", got)
	}
}

func TestControlIsKilledAndComesBackWithAnotherCertificate(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	p := runs(t, s, nil)
	p.told(t, firstStory)
	held := p.authority()
	s.stop()
	until(t, "a report that control is away", func() bool { return p.fault(PartControl) != "" })
	if p.authority() != held || p.story() != "" {
		t.Error("something changed while control was away")
	}
	s.begin(t, ServerOptions{})
	s.rules(bot.UID, Policy{Revision: "rev-2", Template: permits(t, "b.example")})
	p.told(t, "authority for b.example, policy rev-2 of support/bot")
	if got := p.fault(PartControl); got != "" {
		t.Errorf("still reported: %s", got)
	}
}

func TestTheTokenIsReadAnewForEachCall(t *testing.T) {
	s, _ := start(t, ServerOptions{StreamLife: time.Millisecond})
	p := runs(t, s, func(o *ClientOptions) { o.Away = time.Hour })
	p.told(t, firstStory)
	p.has("the next token")
	s.knows("the next token", bot)
	s.control.mu.Lock()
	delete(s.tokens, "its token")
	s.control.mu.Unlock()
	s.rules(bot.UID, Policy{Revision: "rev-2"})
	p.told(t, "policy rev-2 of support/bot, no authority")
	if got := p.fault(PartControl); got != "" {
		t.Errorf("reported: %s", got)
	}
}

func TestATokenThatIsNotTakenIsReported(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	p := runs(t, s, func(o *ClientOptions) { o.Token = func() (string, error) { return "of another audience", nil } })
	until(t, "a report", func() bool { return strings.HasPrefix(p.faultTail(PartControl), "bad_token: ") })
	q := runs(t, s, func(o *ClientOptions) { o.Token = func() (string, error) { return "", errors.New("no such file") } })
	until(t, "a report", func() bool { return strings.Contains(q.fault(PartControl), "no such file") })
	e := runs(t, s, func(o *ClientOptions) { o.Token = func() (string, error) { return " \n", nil } })
	until(t, "a report", func() bool { return strings.Contains(e.fault(PartControl), "is empty") })
	if p.story()+q.story()+e.story() != "" {
		t.Error("something is in force")
	}
}

// faultTail is a fault without how long it lasts.
func (p *pod) faultTail(part Part) string {
	_, tail, _ := strings.Cut(p.fault(part), "in force: ")
	return tail
}

// Who is not control gets no token.
func TestTheTokenGoesToControlAlone(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	for what, edit := range map[string]func(*ClientOptions){
		"a certificate by other roots": func(o *ClientOptions) { o.Roots = func() (*x509.CertPool, error) { return x509.NewCertPool(), nil } },
		"no roots, not the system's":   func(o *ClientOptions) { o.Roots = func() (*x509.CertPool, error) { return nil, nil } },
		"roots that cannot be read":    func(o *ClientOptions) { o.Roots = func() (*x509.CertPool, error) { return nil, errors.New("no file") } },
		"a certificate for another":    func(o *ClientOptions) { o.Address = strings.Replace(o.Address, "localhost", "127.0.0.1", 1) },
	} {
		t.Run(what, func(t *testing.T) {
			p := runs(t, s, edit)
			until(t, "a report", func() bool { return strings.Contains(p.fault(PartControl), "unreachable: ") })
			if p.story() != "" {
				t.Error("something is in force")
			}
		})
	}
	if s.asked() > 0 || len(s.refusals()) > 0 {
		t.Errorf("control was called: %v", s.refusals())
	}
}

// K3, K8: what control or its issuer gets wrong is not taken, and what was in
// force stays.
func TestK03AnAuthorityThatIsNotAsAskedForIsRefused(t *testing.T) {
	other := newKey(t)
	for _, row := range []struct {
		what, want string
		wrong      func(*x509.Certificate)
	}{
		{"constraints dropped", "0 name constraints", func(c *x509.Certificate) { c.ExtraExtensions = nil }},
		{"constraints wider", "not those of the policy", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidNameConstraints(), Critical: true, Value: permits(t, "example.com").NameConstraints}}
		}},
		{"constraints that do not bind", "not those of the policy", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidNameConstraints(), Value: c.ExtraExtensions[0].Value}}
		}},
		{"another key", "another key than ours", func(c *x509.Certificate) { c.PublicKey = &other.PublicKey }},
		{"another subject", "its subject is", func(c *x509.Certificate) { c.RawSubject = nil; c.Subject = pkix.Name{CommonName: "x"} }},
		{"no CA", "not a CA", func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageDigitalSignature }},
		{"may not sign", "lacks certSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }},
		{"expired", "it expired", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}},
		{"not yet valid", "not yet valid", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(2*time.Hour), time.Now().Add(3*time.Hour)
		}},
		{"valid for a year", "want at most 25h", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(8760 * time.Hour) }},
		{"no leaf below it", "a leaf it signs does not verify", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }},
	} {
		t.Run(row.what, func(t *testing.T) {
			t.Parallel()
			s, _ := start(t, ServerOptions{})
			p := runs(t, s, nil)
			p.told(t, firstStory)
			held := p.authority()
			s.control.mu.Lock()
			s.issue = row.wrong
			s.control.mu.Unlock()
			s.rules(bot.UID, Policy{Revision: "rev-2", Template: permits(t, "api.example.com", "b.example")})
			until(t, "a report", func() bool { return p.fault(PartCA) != "" })
			if got := p.fault(PartCA); !strings.Contains(got, row.want) || !strings.Contains(got, "signs until") {
				t.Errorf("reported %q, want %q", got, row.want)
			}
			if p.authority() != held || p.story() != "" {
				t.Error("it was taken")
			}
			s.control.mu.Lock()
			s.issue = nil
			s.control.mu.Unlock()
			p.told(t, "authority for b.example api.example.com, policy rev-2 of support/bot")
		})
	}
}

func TestK03AChainThatLeadsNowhereIsRefused(t *testing.T) {
	c, now := newControl(t), time.Now()
	a, err := newAttempt(permits(t, "api.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Sign(t.Context(), bot, a.request, "r")
	if err != nil {
		t.Fatal(err)
	}
	good, stranger := got.Chain, newControl(t).root
	if _, err := a.authority(good, []*x509.Certificate{stranger, c.root}, now); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	for what, row := range map[string]struct {
		chain   [][]byte
		trusted []*x509.Certificate
		want    string
	}{
		"nothing":                           {nil, nil, "0 certificates"},
		"no root":                           {good[:1], nil, "1 certificates"},
		"more than a chain":                 {append(append([][]byte{}, good...), make([][]byte, maxChain)...), nil, "certificates"},
		"no certificate":                    {[][]byte{good[0], {1}}, nil, "certificate 2"},
		"another root":                      {[][]byte{good[0], stranger.Raw}, nil, "not signed by the next"},
		"the root first":                    {[][]byte{good[1], good[0]}, nil, "another key"},
		"no root at the end":                {[][]byte{good[0], good[1], good[0]}, nil, "not signed by the next"},
		"a root that the clients have not":  {good, []*x509.Certificate{stranger}, "not in the bundle"},
		"a bundle without a single root":    {good, []*x509.Certificate{}, "not in the bundle"},
		"an intermediate in a root's place": {[][]byte{good[0], good[0]}, nil, "not signed by the next"},
	} {
		if _, err := a.authority(row.chain, row.trusted, now); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", what, err, row.want)
		}
	}
}

// TestK02ARootThatIsRenewedWithItsKeyIsTheSameRoot: a pod that started before
// has clients that trust the certificate from before.
func TestK02ARootThatIsRenewedWithItsKeyIsTheSameRoot(t *testing.T) {
	c, now := newControl(t), time.Now()
	a, err := newAttempt(permits(t, "api.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	before := c.root
	again := func(name string, ends time.Time, key *ecdsa.PrivateKey) *x509.Certificate {
		tmpl := *before
		tmpl.SerialNumber, tmpl.NotAfter = big.NewInt(77), ends
		tmpl.RawSubject, tmpl.Subject, tmpl.PublicKey = nil, pkix.Name{CommonName: name}, &key.PublicKey
		return newCert(t, &tmpl, &tmpl, &key.PublicKey, key)
	}
	c.root = again(before.Subject.CommonName, now.Add(2000*time.Hour), c.rootKey)
	got, err := c.Sign(t.Context(), bot, a.request, "r")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := a.authority(got.Chain, []*x509.Certificate{before}, now)
	if err != nil {
		t.Fatal(err)
	}
	// The pod's clients, which know the certificate from before alone.
	roots := x509.NewCertPool()
	roots.AddCert(before)
	if _, err := authority.Certificate().Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		t.Errorf("a client that started before: %v", err)
	}
	for what, trusted := range map[string]*x509.Certificate{
		"one that has ended":     again(before.Subject.CommonName, now.Add(-time.Minute), c.rootKey),
		"the key by other name":  again("other", now.Add(2000*time.Hour), c.rootKey),
		"the name of other keys": again(before.Subject.CommonName, now.Add(2000*time.Hour), newKey(t)),
	} {
		if _, err := a.authority(got.Chain, []*x509.Certificate{trusted}, now); err == nil || !strings.Contains(err.Error(), "not in the bundle") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An issuer whose clock is ahead would else be ahead at the next try as well.
func TestAnIntermediateThatBeginsInAMomentIsWaitedFor(t *testing.T) {
	s, _ := start(t, ServerOptions{})
	s.issue = func(c *x509.Certificate) { c.NotBefore = time.Now().Add(2 * time.Second) }
	p := runs(t, s, nil)
	p.told(t, firstStory)
	if len(s.signed) != 1 {
		t.Errorf("%d certificates were signed", len(s.signed))
	}
}

// K6: whatever holds the key, printing it does not print the key.
func TestK06TheKeyIsNeverPrinted(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	a := &attempt{template: permits(t, "api.example.com"), key: hide(key)}
	if a.request, err = NewRequest(a.template, a.key); err != nil {
		t.Fatal(err)
	}
	got, err := newControl(t).Sign(t.Context(), bot, a.request, "r")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := a.authority(got.Chain, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	held := &signed{template: a.template, authority: authority}
	k := &keeper{attempt: a, held: held}
	var texts []string
	for _, v := range []any{a, *a, a.key, *a.key, held, *held, k, result{*held, a, nil}, []*attempt{a}, map[string]any{"key": a.key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		if out, err := json.Marshal(v); err == nil {
			texts = append(texts, string(out))
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		texts = append(texts, log.String())
	}
	d := fmt.Sprint(raw)
	shown := fmt.Sprintf("%v %x", *key, raw)
	secrets := []string{hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), d[1 : len(d)-1], strings.ReplaceAll(d[1:len(d)-1], " ", ","), key.D.String()} //nolint:staticcheck // D is what a printed key would show
	holds := func(text string) bool {
		return slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(text, s) })
	}
	if !holds(shown) {
		t.Fatal("the search does not find a key that is printed")
	}
	for _, text := range texts {
		if holds(text) {
			t.Fatalf("printed: %.200s", text)
		}
	}
}

func TestAClientIsNotMadeWithoutItsParts(t *testing.T) {
	token := func() (string, error) { return "t", nil }
	roots := func() (*x509.CertPool, error) { return x509.NewCertPool(), nil }
	for what, o := range map[string]ClientOptions{
		"no address": {Roots: roots, Token: token},
		"no port":    {Address: "control", Roots: roots, Token: token},
		"no host":    {Address: ":8443", Roots: roots, Token: token},
		"no roots":   {Address: "control:8443", Token: token},
		"no token":   {Address: "control:8443", Roots: roots},
	} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%s: it is made", what)
		}
	}
}
