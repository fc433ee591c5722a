package resolver

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/audit"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const testPolicy = `
apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: test}
spec:
  allowlist: [api.allowed.test]
  rules:
    - {name: odd, hosts: ["*.deep.test"], ports: [8443]}
    - {name: barred, action: deny, hosts: [barred.deep.test], scheme: any, ports: [8443]}
`

// world is a resolver with its log.
type world struct {
	*Resolver
	t      *testing.T
	log    *audit.Log
	file   string
	set    atomic.Pointer[policy.Set]
	seen   []audit.Record
	client netip.AddrPort
}

func (w *world) Load() *policy.Set { return w.set.Load() }

func compile(t *testing.T, text string, o policy.Options) *policy.Set {
	t.Helper()
	docs, err := v1alpha1.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o.AnyAgent = true
	set, _, err := policy.Compile(docs, o)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func start(t *testing.T, change func(*Config, *audit.Config)) *world {
	t.Helper()
	w := &world{t: t, file: filepath.Join(t.TempDir(), "audit.log"), client: netip.MustParseAddrPort("127.0.0.1:4000")}
	w.set.Store(compile(t, testPolicy, policy.Options{}))
	logs := audit.Config{File: w.file, Identity: "test"}
	cfg := Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Policy: w, Agent: func() identity.Principal { return identity.Principal{AgentIdentity: "bot"} }, Observe: func(r *audit.Record) { w.seen = append(w.seen, *r) }}
	if change != nil {
		change(&cfg, &logs)
	}
	log, err := audit.Open(logs)
	if err != nil {
		t.Fatal(err)
	}
	w.log, cfg.Log = log, log
	if w.Resolver, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.finish() })
	return w
}

func (w *world) finish() {
	if w.log == nil {
		return
	}
	if err := w.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.log.Close(); err != nil {
		w.t.Error(err)
	}
	w.log = nil
}

// denials are the refusals of the log, as "reason host detail", with the count
// behind a count.
func (w *world) denials() (all []string) {
	w.t.Helper()
	w.finish()
	data, err := os.ReadFile(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	err = audit.Read(bytes.NewReader(data), func(e *audit.Entry) error {
		if e.Event != "egress_denied" {
			return nil
		}
		if e.Kind != "dns" || e.AgentIdentity != "bot" || e.Phase != "decision" {
			w.t.Errorf("record %s", e.Raw)
		}
		line := strings.TrimSpace(e.Reason + " " + e.Host + " " + e.Detail)
		if e.Count > 0 {
			line += fmt.Sprintf(" x%d", e.Count)
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func query(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.Id, m.RecursionDesired = 77, true
	m.Question = []dns.Question{{Name: name, Qtype: qtype, Qclass: dns.ClassINET}}
	return m
}

// ask sends m as bytes and parses what comes back.
func (w *world) ask(m *dns.Msg) *dns.Msg {
	w.t.Helper()
	b, err := m.Pack()
	if err != nil {
		w.t.Fatal(err)
	}
	answer := w.Answer(b, w.client)
	r := new(dns.Msg)
	if err := r.Unpack(answer); err != nil {
		w.t.Fatalf("%x: %v", answer, err)
	}
	if r.Id != m.Id || !r.Response {
		w.t.Fatalf("not an answer to the question: %v", r)
	}
	return r
}

func TestAnAllowedNameHasAnAddressThatMeansNothing(t *testing.T) {
	w := start(t, nil)
	for _, name := range []string{"api.allowed.test.", "a.deep.test.", "b.c.deep.test."} {
		a, aaaa := w.ask(query(name, dns.TypeA)), w.ask(query(name, dns.TypeAAAA))
		if len(a.Answer) != 1 || len(aaaa.Answer) != 1 || a.Rcode != 0 || aaaa.Rcode != 0 {
			t.Fatalf("%v\n%v", a, aaaa)
		}
		host := strings.TrimSuffix(name, ".")
		four, six := a.Answer[0].(*dns.A), aaaa.Answer[0].(*dns.AAAA)
		if four.A.String() != Address4(host).String() || six.AAAA.String() != Address6(host).String() {
			t.Errorf("%s is %s and %s", name, four.A, six.AAAA)
		}
		if four.Hdr.Ttl != 60 || four.Hdr.Name != name || six.Hdr.Name != name || !a.RecursionAvailable || !a.RecursionDesired {
			t.Errorf("%v", a)
		}
	}
	if got := w.denials(); got != nil {
		t.Errorf("recorded %q", got)
	}
}

func TestAddressesAreStableAndInTheirRanges(t *testing.T) {
	if a, b := Address4("api.openai.com"), Address6("api.openai.com"); a.String() != "198.19.233.68" || b.String() != "fdae:6a11:5e9:0:39b0:c655:9896:6871" {
		t.Errorf("the address of a name has changed: %s, %s", a, b)
	}
	four, six, different := netip.MustParsePrefix("198.19.0.0/16"), netip.MustParsePrefix("fdae:6a11:5e9::/64"), map[netip.Addr]bool{}
	for i := range 1000 {
		a, b := Address4(fmt.Sprint(i)), Address6(fmt.Sprint(i))
		if !four.Contains(a) || !six.Contains(b) || a.As4()[2] == 0 && a.As4()[3] == 0 {
			t.Fatalf("%s, %s", a, b)
		}
		different[a], different[b] = true, true
	}
	if len(different) < 1900 {
		t.Errorf("%d addresses for 1000 names", len(different))
	}
}

func TestTheSpellingOfTheQuestionIsTheAnswers(t *testing.T) {
	w := start(t, nil)
	for _, name := range []string{"API.allowed.TEST.", "aPi.AlLoWeD.tEsT."} { // 0x20
		r := w.ask(query(name, dns.TypeA))
		if len(r.Answer) != 1 || r.Question[0].Name != name || r.Answer[0].Header().Name != name {
			t.Errorf("%s: %v", name, r)
		} else if got := r.Answer[0].(*dns.A).A.String(); got != Address4("api.allowed.test").String() {
			t.Errorf("%s is %s", name, got)
		}
	}
}

func TestD10ADeniedNameIsRecordedAndNotAnswered(t *testing.T) {
	w := start(t, nil)
	for _, name := range []string{
		"denied.test.", "allowed.test.", "x.api.allowed.test.", "deep.test.", "barred.deep.test.", "DENIED.test.", ".",
		"api.allowed.test.ns.svc.cluster.local.", "evil\\000.allowed.test.", "api\\.allowed.test.", "-a.deep.test.", "1.2.3.4.", "xn--0.deep.test.",
		"c2VjcmV0.exfil.test.",
	} {
		r := w.ask(query(name, dns.TypeA))
		if r.Rcode != dns.RcodeNameError || len(r.Answer)+len(r.Ns)+len(r.Extra) != 0 {
			t.Errorf("%s: %v", name, r)
		}
	}
	want := []string{
		"dns_name_denied denied.test A", "dns_name_denied allowed.test A", "dns_name_denied x.api.allowed.test A", "dns_name_denied deep.test A",
		"dns_name_denied barred.deep.test A", "dns_name_denied . A", "dns_name_denied api.allowed.test.ns.svc.cluster.local A",
		`dns_name_denied evil\000.allowed.test. A`, `dns_name_denied api\.allowed.test. A`, "dns_name_denied -a.deep.test. A",
		"dns_name_denied 1.2.3.4. A", "dns_name_denied xn--0.deep.test. A", "dns_name_denied c2vjcmv0.exfil.test A",
		"dns_name_denied denied.test A x1", // DENIED.test
	}
	if got := w.denials(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNothingButAddressesIsTold(t *testing.T) {
	w := start(t, func(c *Config, _ *audit.Config) { c.NoIPv6 = true })
	silent := []uint16{dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeCAA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeAAAA}
	told := []uint16{dns.TypeTXT, dns.TypeMX, dns.TypeANY, dns.TypeSRV, dns.TypeNULL, dns.TypePTR, dns.TypeAXFR, 65280}
	for _, qtype := range append(silent, told...) {
		if r := w.ask(query("api.allowed.test.", qtype)); r.Rcode != 0 || len(r.Answer)+len(r.Ns)+len(r.Extra) != 0 {
			t.Errorf("%v", r)
		}
	}
	var want []string
	for _, qtype := range told {
		want = append(want, "dns_type_denied api.allowed.test "+dns.Type(qtype).String())
	}
	if got := w.denials(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnEDNSClientIsToldWhy(t *testing.T) {
	w := start(t, nil)
	m := query("denied.test.", dns.TypeA)
	m.SetEdns0(1232, true)
	opt := w.ask(m).IsEdns0()
	if opt == nil || len(opt.Option) != 1 {
		t.Fatal("no option")
	}
	if ede, ok := opt.Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != 17 || ede.ExtraText != ReasonName {
		t.Errorf("%v", opt)
	}
	m = query("api.allowed.test.", dns.TypeA)
	m.SetEdns0(1232, false)
	if r := w.ask(m); r.IsEdns0() == nil || len(r.Answer) != 1 {
		t.Errorf("%v", r)
	}
	m.IsEdns0().SetVersion(1)
	if r := w.ask(m); r.Rcode != dns.RcodeBadVers || len(r.Answer) != 0 {
		t.Errorf("%v", r)
	}
}

func TestWhatIsNoQuestionIsRefused(t *testing.T) {
	w := start(t, nil)
	two := query("api.allowed.test.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	update := query("api.allowed.test.", dns.TypeSOA)
	update.Opcode = dns.OpcodeUpdate
	chaos := query("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	laden := query("api.allowed.test.", dns.TypeA)
	laden.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "x.test.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{1, 2, 3, 4}}}
	none := query("a.", dns.TypeA)
	none.Question = nil
	for _, c := range []struct {
		what string
		m    *dns.Msg
		code int
	}{
		{"two questions", two, dns.RcodeFormatError}, {"an update", update, dns.RcodeNotImplemented}, {"class CHAOS", chaos, dns.RcodeRefused},
		{"answers in a question", laden, dns.RcodeFormatError}, {"no question", none, dns.RcodeFormatError},
	} {
		if r := w.ask(c.m); r.Rcode != c.code || len(r.Answer) != 0 {
			t.Errorf("%s: %v", c.what, r)
		}
	}
	whole, err := query("api.allowed.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		answer := w.Answer(whole[:n], w.client)
		if n < headerSize != (answer == nil) || answer != nil && answer[3]&0xf == dns.RcodeSuccess {
			t.Errorf("cut to %d bytes: %x", n, answer)
		}
	}
	whole[2] |= 0x80
	if answer := w.Answer(whole, w.client); answer != nil {
		t.Errorf("an answer was answered: %x", answer)
	}
	for _, line := range w.denials() {
		if !strings.HasPrefix(line, ReasonQuery) {
			t.Error(line)
		}
	}
	if len(w.seen) == 0 || w.seen[0].Reason != ReasonQuery {
		t.Error("nothing was counted")
	}
}

// The names of a search list come with every lookup of a good agent.
func TestTheSameNameIsRecordedOnceAndCounted(t *testing.T) {
	at := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	w := start(t, func(c *Config, l *audit.Config) {
		c.Now = func() time.Time { return at }
		l.Refusals = audit.RefusalLimits{Burst: 20, Rate: 1}
	})
	for range 500 {
		for _, suffix := range []string{"ns.svc.cluster.local.", "svc.cluster.local.", "cluster.local."} {
			if r := w.ask(query("api.allowed.test."+suffix, dns.TypeA)); r.Rcode != dns.RcodeNameError {
				t.Fatalf("%v", r)
			}
		}
	}
	if err := w.repeat.flush(); err != nil { // the window ends
		t.Fatal(err)
	}
	w.ask(query("api.allowed.test.cluster.local.", dns.TypeA))
	got := w.denials()
	slices.Sort(got)
	want := []string{
		"dns_name_denied api.allowed.test.cluster.local A", "dns_name_denied api.allowed.test.cluster.local A", "dns_name_denied api.allowed.test.cluster.local A x499",
		"dns_name_denied api.allowed.test.ns.svc.cluster.local A", "dns_name_denied api.allowed.test.ns.svc.cluster.local A x499",
		"dns_name_denied api.allowed.test.svc.cluster.local A", "dns_name_denied api.allowed.test.svc.cluster.local A x499",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestL03AFloodOfNamesUsesUpItsOwnBudget(t *testing.T) {
	w := start(t, func(_ *Config, l *audit.Config) { l.Refusals = audit.RefusalLimits{Burst: 30, Rate: 1} })
	refused := 0
	for i := range 2 * maxRepeats {
		switch r := w.ask(query(fmt.Sprintf("d%d.exfil.test.", i), dns.TypeTXT)); r.Rcode {
		case dns.RcodeRefused:
			refused++
		case dns.RcodeNameError:
		default:
			t.Fatalf("%v", r)
		}
	}
	if refused < 2*maxRepeats-100 {
		t.Errorf("only %d of %d names were over a budget of 30", refused, 2*maxRepeats)
	}
	w.repeat.mu.Lock()
	defer w.repeat.mu.Unlock()
	if len(w.repeat.recent) > maxRepeats {
		t.Errorf("%d names are remembered", len(w.repeat.recent))
	}
}

func TestL04WithoutALogADeniedNameGetsNoAnswer(t *testing.T) {
	w := start(t, nil)
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	if r := w.ask(query("denied.test.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", r)
	}
	if r := w.ask(query("api.allowed.test.", dns.TypeTXT)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", r)
	}
	bad := query("denied.test.", dns.TypeA)
	bad.Opcode = dns.OpcodeNotify
	if r := w.ask(bad); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", r)
	}
	w.log = nil
}

func TestTheSetInForceDecides(t *testing.T) {
	w := start(t, nil)
	w.set.Store(nil)
	if r := w.ask(query("api.allowed.test.", dns.TypeA)); r.Rcode != dns.RcodeNameError {
		t.Errorf("no policy: %v", r)
	}
	w.set.Store(compile(t, testPolicy, policy.Options{Observe: true}))
	if r := w.ask(query("denied.test.", dns.TypeA)); len(r.Answer) != 1 {
		t.Errorf("observed: %v", r)
	}
}

func TestAResolverNeedsAPolicyAnAgentAndALog(t *testing.T) {
	w := start(t, nil)
	agent := func() identity.Principal { return identity.Principal{} }
	for what, cfg := range map[string]Config{
		"nothing": {}, "no policy": {Agent: agent, Log: w.log}, "no agent": {Policy: w, Log: w.log}, "no log": {Policy: w, Agent: agent},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if _, err := New(Config{Policy: w, Agent: agent, Log: w.log}); err != nil {
		t.Error(err)
	}
}

// panicking is a policy source that fails as no policy may.
type panicking struct{}

func (panicking) Load() *policy.Set { panic("defect") }

func TestAPanicEndsOneQuery(t *testing.T) {
	w := start(t, func(c *Config, _ *audit.Config) { c.Policy = panicking{} })
	b, err := query("api.allowed.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if answer := w.Answer(b, w.client); answer != nil {
		t.Errorf("%x", answer)
	}
}
