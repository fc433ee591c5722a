package policy_test

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

func mustParse(t *testing.T, file string) []v1alpha1.AgentPolicy {
	t.Helper()
	docs, err := v1alpha1.Parse("policy.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestPoliciesThatDoNotCompile(t *testing.T) {
	for _, row := range []struct{ name, rules, want string }{
		{"a passthrough host that a rule with methods judges", `
	- {name: pinned, hosts: [a.example], tls: passthrough}
	- {name: judged, hosts: ["*.example"], methods: [GET]}`,
			`policy.yaml:9:30: spec.rules[0].hosts[0]: passthrough rule "pinned" lets a.example through unseen, but rule "judged" of policy "support-bot" (policy.yaml:10) judges what is sent to *.example; expected a host to be either unseen or judged; inspect it, or leave it out of the other rule`},
		{"a passthrough host that a deny rule with methods judges", `
	- {name: judged, action: deny, hosts: ["*"], methods: [DELETE]}
	- {name: pinned, hosts: [10.0.0.0/8], tls: passthrough}`,
			`policy.yaml:10:30: spec.rules[1].hosts[0]: passthrough rule "pinned" lets 10.0.0.0/8 through unseen, but rule "judged" of policy "support-bot" (policy.yaml:9) judges what is sent to *;`},
		{"a passthrough host that a condition judges", `
	- {name: pinned, hosts: ["a.*.example"], tls: passthrough}
	- {name: judged, hosts: [a.b.example], when: 'request.method == "GET"'}`, `judges what is sent to a.b.example`},
		{"an expression with a typing error", `
	- {name: a, hosts: [a.example], when: 'request.methud == "GET"'}`,
			`policy.yaml:9:43: spec.rules[0].when: is not CEL here: line 1, column 1 of the expression: undeclared reference to 'request' (in container ''); expected a CEL expression over request.method`},
		{"an expression that does not parse", `
	- {name: a, hosts: [a.example], when: 'request.method =='}`, `is not CEL here: line 1, column 18 of the expression: Syntax error`},
		{"an expression that compares with one sign", `
	- {name: a, hosts: [a.example], when: 'request.method = "GET"'}`, `is not CEL here: line 1, column 16 of the expression: Syntax error: token recognition error at: '= '; equality is ==; expected`},
		{"an expression that gives a number", `
	- {name: a, hosts: [a.example], when: 'request.port + 1'}`, `gives int, not true or false`},
		{"an expression that compares unlike types", `
	- {name: a, hosts: [a.example], when: 'request.port == "443"'}`, `no matching overload`},
		{"an expression that costs too much", `
	- {name: a, hosts: [a.example], when: 'request.body.json.all(a, request.body.json.all(b, request.body.json.all(c, a == b)))'}`, `above the limit of 20000000: go through fewer lists inside each other`},
		{"an expression that is too long", `
	- {name: a, hosts: [a.example], when: '"` + strings.Repeat("x", 20_000) + `" == request.host'}`, `is not CEL here`},
		{"a body rule on a WebSocket", `
	- {name: a, hosts: [a.example], websocket: true, when: 'request.body.json.a == 1'}`, `reads the body, and a WebSocket's stream has no end to read to`},
		{"a body rule on gRPC", `
	- {name: a, hosts: [a.example], when: 'request.headers["content-type"] == ["application/grpc"] && request.body.json.a == 1'}`, `reads the body, and a gRPC stream has no end to read to`},
		{"a roots file that is not there", `
	- {name: a, hosts: [a.example], upstream: {rootsFile: missing.pem}}`, `policy.yaml:9:59: spec.rules[0].upstream.rootsFile: reading "missing.pem": no such file; expected a PEM file with certificates`},
		{"a roots file without a certificate", `
	- {name: a, hosts: [a.example], upstream: {rootsFile: empty.pem}}`, `"empty.pem" has no certificate in it`},
		{"a host that canonicalises to nothing", `
	- {name: a, hosts: [a_-.example]}`, `"a_-.example" is no host`},
		{"a host that is an address to others", `
	- {name: a, hosts: ["127.1"]}`, `"127.1" is no host`},
		{"an allowlist host", `
	- {name: a, hosts: ["-.example"]}`, `"-.example" is no host`},
	} {
		files := func(name string) ([]byte, error) {
			if name == "empty.pem" {
				return []byte("nothing"), nil
			}
			return nil, errors.New("no such file")
		}
		set, _, err := policy.Compile(mustParse(t, rules(row.rules)), policy.Options{Files: files})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s:\n  got  %v\n  want %s", row.name, err, row.want)
		}
		var at *v1alpha1.Error
		if !errors.As(err, &at) || at.Line == 0 || at.File != "policy.yaml" {
			t.Errorf("%s: the error has no place", row.name)
		}
		if set != nil {
			t.Errorf("%s: a set and an error", row.name)
		}
	}
}

func TestPassthroughDoesNotCollideWithoutAReason(t *testing.T) {
	for _, text := range []string{`
	- {name: pinned, hosts: [a.example], tls: passthrough}
	- {name: other, hosts: [b.example], methods: [GET]}`, `
	- {name: pinned, hosts: [a.example], tls: passthrough}
	- {name: port, hosts: [a.example], ports: [8443], methods: [GET]}`, `
	- {name: pinned, hosts: [a.example], tls: passthrough}
	- {name: all-of-it, hosts: [a.example]}`, `
	- {name: pinned, hosts: [a.example], tls: passthrough}
	- {name: plain, hosts: [a.example], scheme: http, methods: [GET]}`} {
		if _, _, err := policy.Compile(mustParse(t, rules(text)), policy.Options{}); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
	apart := document("a", "enforce", "{namespaces: [one]}", "[]", "\n\t- {name: pinned, hosts: [a.example], tls: passthrough}") + "---\n" +
		document("b", "enforce", "{namespaces: [two]}", "[]", "\n\t- {name: judged, hosts: [a.example], methods: [GET]}")
	if _, _, err := policy.Compile(mustParse(t, apart), policy.Options{}); err != nil {
		t.Errorf("policies of different agents: %v", err)
	}
}

func TestAPolicyWithoutAgentsIsForLaptops(t *testing.T) {
	docs := mustParse(t, "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: a}\nspec: {allowlist: [x.example]}")
	if _, _, err := policy.Compile(docs, policy.Options{}); err == nil || !strings.Contains(err.Error(), "spec.agents: is missing; expected whom the policy is for") {
		t.Errorf("%v", err)
	}
	set, _, err := policy.Compile(docs, policy.Options{AnyAgent: true})
	if err != nil {
		t.Fatal(err)
	}
	world{t, set.For(identity.Principal{AgentIdentity: "x"})}.allow("GET https://x.example/")
}

func TestCompileValidatesWhatWasMadeInGo(t *testing.T) {
	for _, doc := range []v1alpha1.AgentPolicy{
		{}, {APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind},
		{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "a"}, Spec: v1alpha1.Spec{Rules: []v1alpha1.Rule{{Hosts: []string{"*"}, Action: "permit"}}}},
	} {
		if _, _, err := policy.Compile([]v1alpha1.AgentPolicy{doc}, policy.Options{AnyAgent: true}); err == nil {
			t.Errorf("%+v compiles", doc)
		}
	}
	if _, _, err := policy.Compile(nil, policy.Options{AllowHosts: []string{"https://x"}}); err == nil || !strings.Contains(err.Error(), "policy flags: spec.allowlist[0]") {
		t.Errorf("a URL as an allowed host: %v", err)
	}
	if _, _, err := policy.Compile(make([]v1alpha1.AgentPolicy, 0), policy.Options{Files: nil}); err != nil {
		t.Error(err)
	}
	named := mustParse(t, rules("\n\t- {name: a, hosts: [a.example], upstream: {rootsFile: /etc/roots.pem}}"))
	if _, _, err := policy.Compile(named, policy.Options{Files: nil}); err == nil || !strings.Contains(err.Error(), `policy.yaml:9:59: spec.rules[0].upstream.rootsFile: "/etc/roots.pem" would be a file in the container of each engine`) {
		t.Errorf("a file where there is none: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	text := document("a", "observe", "{serviceAccounts: [x]}", `["*.wide.example", 10.0.0.0/8]`, `
	- {name: widened, hosts: [x.wide.example, 10.1.0.0/16], methods: [GET]}
	- {name: dead, hosts: [x.dead.example], methods: [GET], paths: ["/a/*", "/b/**"]}
	- {name: deadly, action: deny, hosts: ["*.dead.example"], paths: ["/a/**", "/b/**"]}
	- {name: half, hosts: [x.half.example], methods: [GET]}
	- {name: halved, action: deny, hosts: ["*.half.example"], methods: [GET], paths: [/x]}
	- {name: mid, hosts: [a.b.mid.example], paths: [/x]}
	- {name: middle, action: deny, hosts: ["a.*.mid.example"], methods: [GET, POST]}
	- {name: fine, hosts: [fine.example], methods: [GET]}`) + "---\n" + document("b", "enforce", "{namespaces: [nn]}", "[]", "")
	_, got, err := policy.Compile(mustParse(t, text), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, w := range got {
		lines = append(lines, w.String())
	}
	want := []string{
		`policy.yaml:6:11: policy "a" selects service accounts of that name in every namespace; add namespaces`,
		`policy.yaml:5:9: policy "a" observes, but "b" enforces for some of the same agents, so nothing is let pass for them`,
		`policy.yaml:9:7: rule "widened" restricts x.wide.example, but the allowlist of policy "a" has *.wide.example and allows every method and path there`,
		`policy.yaml:9:7: rule "widened" restricts 10.1.0.0/16, but the allowlist of policy "a" has 10.0.0.0/8 and allows every method and path there`,
		`policy.yaml:10:7: rule "dead" can never match: deny rule "deadly" of policy "a" covers it`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	made := v1alpha1.AgentPolicy{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "go"}, Spec: v1alpha1.Spec{Allowlist: []string{"*"}, Rules: []v1alpha1.Rule{{Name: "r", Hosts: []string{"x.example"}, Methods: []string{"GET"}}}}}
	_, got, err = policy.Compile([]v1alpha1.AgentPolicy{made}, policy.Options{AnyAgent: true})
	if err != nil || len(got) != 1 || !strings.HasPrefix(got[0].String(), `policy go: rule "r" restricts x.example`) {
		t.Errorf("%v %v", got, err)
	}
}

func TestRevisionNamesTheContent(t *testing.T) {
	revision := func(text string, o policy.Options) string {
		t.Helper()
		o.Files = func(name string) ([]byte, error) { return rootPEM(t, name), nil }
		return compile(t, o, text).Revision()
	}
	a := revision(rules(supportBot), policy.Options{})
	if len(a) != len("sha256:")+12 || !strings.HasPrefix(a, "sha256:") {
		t.Errorf("%q", a)
	}
	if b := revision("# a comment\n"+strings.ReplaceAll(rules(supportBot), "[GET]", `["GET"]`), policy.Options{}); a != b {
		t.Error("layout changes the revision")
	}
	if b := revision(strings.ReplaceAll(rules(supportBot), "30/min", "31/min"), policy.Options{}); a == b {
		t.Error("a limit does not change the revision")
	}
	if b := revision(rules(supportBot), policy.Options{Observe: true}); a == b {
		t.Error("observing does not change the revision")
	}
}

// rootPEM makes a certificate authority of that name.
func rootPEM(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, DNSNames: []string{name}, NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestEgressUnites(t *testing.T) {
	const pin = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	o := policy.Options{Files: func(name string) ([]byte, error) { return rootPEM(t, name), nil }}
	set := compile(t, o, rules(`
	- {name: a, hosts: [x.example], upstream: {rootsFile: a.pem}}
	- {name: b, hosts: ["*.example"], upstream: {rootsFile: b.pem, spkiPins: ["`+pin+`"]}, addresses: [10.0.0.0/8]}
	- {name: c, hosts: [y.example], upstream: {rootsFile: a.pem}}
	- {name: d, hosts: [plain.test]}`))
	w := world{t, set.For(bot)}
	both := w.allow("GET https://x.example/").Egress
	alone := w.allow("GET https://z.example/").Egress
	if both.Roots == nil || alone.Roots == nil || both.Roots.Equal(alone.Roots) || both.Key == alone.Key || len(both.SPKIPins) != 1 || len(both.Addresses) != 1 {
		t.Errorf("%+v, %+v", both, alone)
	}
	if plain := w.allow("GET https://plain.test/").Egress; plain.Key != "" || plain.Roots != nil || plain.Addresses != nil {
		t.Errorf("%+v", plain)
	}
	if again := w.allow("GET https://y.example/").Egress; again.Key == "" || again.Key != both.Key {
		t.Errorf("the same files, addresses and pins have two keys: %q, %q", again.Key, both.Key)
	}
}

// TestPoolsAreUnitedOnce has more rules match than a view remembers by.
func TestPoolsAreUnitedOnce(t *testing.T) {
	var text strings.Builder
	for i := range 12 {
		fmt.Fprintf(&text, "\n\t- {name: r%d, hosts: [x.example], upstream: {rootsFile: %c.pem}}", i, "abc"[i%3])
	}
	text.WriteString(`
	- {name: two, hosts: [y.example], upstream: {rootsFile: b.pem}}
	- {name: one, hosts: [y.example], upstream: {rootsFile: a.pem}}
	- {name: other, hosts: [z.example], upstream: {rootsFile: a.pem}}
	- {name: and, hosts: [z.example], upstream: {rootsFile: b.pem}}`)
	files := map[string][]byte{}
	o := policy.Options{Files: func(name string) ([]byte, error) {
		if files[name] == nil {
			files[name] = append(rootPEM(t, name), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...) // one that is none is passed over
		}
		return files[name], nil
	}}
	w := world{t, compile(t, o, rules(text.String())).For(bot)}
	roots := w.allow("GET https://x.example/").Egress.Roots
	want := x509.NewCertPool()
	for _, file := range files {
		want.AppendCertsFromPEM(file)
	}
	if !roots.Equal(want) {
		t.Error("the pool is not that of the three files")
	}
	if again := w.allow("GET https://x.example/").Egress.Roots; again != roots {
		t.Error("the same files were parsed again")
	}
	if y, z := w.allow("GET https://y.example/").Egress.Roots, w.allow("GET https://z.example/").Egress.Roots; y != z || y == roots {
		t.Error("the same two files have two pools, or all three's")
	}
}

func TestExplainSaysWhy(t *testing.T) {
	w := with(t, rules(strings.ReplaceAll(supportBot, `["*"]`, `["*.com"]`)+gate+`
	- {name: pinned, hosts: [pin.test], tls: passthrough}
	- {name: pinned-inspect, hosts: [pin.test], ports: [8443], methods: [GET]}
	- {name: barred, action: deny, hosts: [barred.test]}
	- {name: opted, hosts: [opted.test], path: {semicolon: allow}}
	- {name: guard, action: deny, hosts: [opted.test], paths: ["/admin/**"]}
	- {name: quirky, hosts: [quirk.test], methods: [GET]}`))
	why := func(line, rule, want string, headers ...string) {
		t.Helper()
		e := policy.Explain(w.v, parse(t, line, headers...), []byte(`{"model":"opus"}`))
		for _, r := range e.Rules {
			if r.Rule == rule {
				if !strings.Contains(r.Why, want) || r.Matched != strings.HasPrefix(want, "matches") || r.Line == 0 {
					t.Errorf("%s: %s: %+v, want %s", line, rule, r, want)
				}
				return
			}
		}
		t.Errorf("%s: nothing on %s in %+v", line, rule, e)
	}
	why("POST https://api.openai.com/v1/chat/completions", "openai-chat", "matches")
	why("POST https://api.openai.com/v1/chat/completions", "no-deletes", "it is not for method POST")
	why("GET https://api.openai.com/v1/chat/completions", "openai-chat", "it is not for method GET")
	why("POST https://api.openai.com/v2", "openai-chat", "no path of it matches")
	why("POST https://api.openai.com:444/v2", "openai-chat", "it is not for port 444")
	why("POST http://api.openai.com/v2", "openai-chat", "it is not for scheme http")
	why("POST "+messages, "model-gate", "its condition is false", json, "Content-Length: 16")
	why("POST "+messages, "model-gate", "which is refused: the content-type", "Content-Length: 16")
	why("POST https://mixed.example/", "no-opus", "matches", json, "Content-Length: 16")
	why("POST https://mixed.example/", "no-opus", "which is refused: the content-type", "Content-Length: 16")
	why("DELETE https://head.example/a", "head", "its condition is false")
	why("GET https://head.example/a", "head", "no such key")
	why("CONNECT https://pin.test", "pinned", "matches")
	why("CONNECT https://barred.test", "barred", "matches")
	why("GET https://pin.test/", "pinned", "it is for passthrough tunnels")
	why("CONNECT https://pin.test:8443", "pinned-inspect", "it looks inside")
	why("GET https://quirk.test/a;b//c", "quirky", "it does not opt in to semicolon,doubleSlash in a path")
	why("GET https://quirk.test/", "quirky", "it does not opt in to methodOverride", "X-Http-Method: PUT")
	why("GET wss://quirk.test/", "quirky", "it does not allow WebSocket")
	why("GET https://opted.test/admin;x/y", "guard", "matches another reading")
}

func TestCasesAreCompared(t *testing.T) {
	w := with(t, rules(supportBot))
	deny := w.v.Decide(parse(t, "GET https://api.openai.com/v1/chat/completions"))
	allow := w.v.Decide(parse(t, "GET https://files.example/"))
	for _, row := range []struct {
		c    v1alpha1.Case
		d    policy.Decision
		want string
	}{
		{v1alpha1.Case{Want: "allow", Rule: "files"}, allow, ""},
		{v1alpha1.Case{Want: "deny", Reason: "method_not_allowed"}, deny, ""},
		{v1alpha1.Case{Want: "deny"}, allow, "want deny, got allow"},
		{v1alpha1.Case{Want: "allow"}, deny, "want allow, got deny; reason method_not_allowed; this agent may send to the host: POST /v1/chat/completions or /v1/assistants/*/runs"},
		{v1alpha1.Case{Want: "allow", Rule: "x"}, allow, `want rule x, got "files"`},
		{v1alpha1.Case{Want: "deny", Reason: "x"}, deny, `want reason x, got "method_not_allowed"`},
		{v1alpha1.Case{Want: "allow"}, policy.Decision{Verdict: policy.Allow, Observed: true}, "want allow, got deny"},
	} {
		if got := policy.CheckCase(row.c, row.d); got != row.want {
			t.Errorf("%+v: %q, want %q", row.c, got, row.want)
		}
	}
}

func TestWordsOfTheLog(t *testing.T) {
	for got, want := range map[string]string{
		policy.Deny.String(): "deny", policy.Allow.String(): "allow", policy.Hold.String(): "hold",
		policy.RecordFull.String(): "full", policy.RecordPattern.String(): "pattern", policy.RecordHash.String(): "hash",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestD01ARuleOfAddressesAloneLetsThemThroughTheGuard(t *testing.T) {
	for _, row := range []struct {
		hosts, url string
		want       int
	}{
		{"[10.1.0.0/16]", "http://10.1.2.3/", 1},
		{"[10.1.0.0/16, 10.2.3.4/32]", "http://10.2.3.4/", 2},
		{"[10.1.0.0/16, a.test]", "http://a.test/", 0}, // a.test could be made to resolve there
		{"[a.test]", "http://a.test/", 0},
	} {
		d := with(t, rules("- name: r\n  scheme: http\n  hosts: "+row.hosts+"\n")).allow("GET " + row.url)
		if got := len(d.Egress.Addresses); got != row.want {
			t.Errorf("%s: %d CIDRs go through the guard, want %d", row.hosts, got, row.want)
		}
	}
}
