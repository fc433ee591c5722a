package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const supportBot = `
	- name: openai-chat
	  hosts: [api.openai.com]
	  methods: [POST]
	  paths: [/v1/chat/completions, "/v1/assistants/*/runs"]
	  limits: {rate: 30/min, requestBytes: 1Mi}
	- name: npm
	  hosts: [npm.pkg.example]
	  methods: [GET]
	  paths: ["/**"]
	  path: {encodedSlash: allow}
	- name: no-deletes
	  action: deny
	  methods: [DELETE]
	  hosts: ["*"]
	- name: files
	  hosts: [files.example]
`

func TestRulesMatchByHostMethodAndPath(t *testing.T) {
	w := with(t, rules(supportBot))
	w.allow("POST https://api.openai.com/v1/chat/completions")
	w.allow("POST https://API.OpenAI.com:443/v1/chat/completions?stream=1")
	w.allow("POST https://api.openai.com/v1/assistants/asst_1/runs")
	w.deny(policy.PathNotAllowed, "POST https://api.openai.com/v1/assistants/runs")
	w.deny(policy.PathNotAllowed, "POST https://api.openai.com/v1/assistants/a/b/runs")
	w.deny(policy.PathNotAllowed, "POST https://api.openai.com/v1/chat/completions/")
	w.deny(policy.PathNotAllowed, "POST https://api.openai.com/v1/chat")
	w.deny(policy.PathNotAllowed, "POST https://api.openai.com/v1/chat/completionsX")
	w.deny(policy.PathNotAllowed, "POST https://api.openai.com/")
	w.deny(policy.MethodNotAllowed, "GET https://api.openai.com/v1/chat/completions")
	w.deny(policy.MethodNotAllowed, "PROPFIND https://api.openai.com/v1/chat/completions")
	w.deny(policy.PortNotAllowed, "POST https://api.openai.com:8443/v1/chat/completions")
	w.deny(policy.SchemeNotAllowed, "POST http://api.openai.com/v1/chat/completions")
	w.deny(policy.NotInAllowlist, "GET https://openai.com/")
	w.deny(policy.DeniedByRule, "DELETE https://files.example/x")
	w.allow("PROPFIND https://files.example/x")
	w.allow("OPTIONS https://files.example/{asterisk}")
	w.deny(policy.PathNotAllowed, "OPTIONS https://npm.pkg.example/{asterisk}")
}

func TestADecisionNamesItsRuleAndLimits(t *testing.T) {
	w := with(t, rules(supportBot))
	d := w.allow("POST https://api.openai.com/v1/assistants/asst_1/runs")
	if d.Rule != "openai-chat" || d.Policy != "support-bot" || d.RequestBytes != 1<<20 || d.Pattern != "/v1/assistants/*/runs" {
		t.Errorf("%+v", d)
	}
	want := policy.Limit{Scope: "support-bot/openai-chat", Rate: 30, Per: time.Minute}
	if !slices.Equal(d.Limits, []policy.Limit{want}) {
		t.Errorf("limits %+v", d.Limits)
	}
	d = w.deny(policy.DeniedByRule, "DELETE https://files.example/x")
	if d.Rule != "no-deletes" {
		t.Errorf("denied by %q", d.Rule)
	}
}

func TestARefusalSaysWhatThisAgentMayDo(t *testing.T) {
	w := with(t, rules(supportBot), document("other", "enforce", "{namespaces: [other]}", "[]", `
	- name: secret
	  hosts: [api.openai.com]
	  paths: [/v1/secret]`))
	d := w.deny(policy.MethodNotAllowed, "GET https://api.openai.com/v1/chat/completions")
	if !strings.Contains(d.Detail, "POST /v1/chat/completions or /v1/assistants/*/runs") || strings.Contains(d.Detail, "secret") || strings.Contains(d.Detail, "openai-chat") {
		t.Errorf("detail %q", d.Detail)
	}
	if d := w.deny(policy.NotInAllowlist, "GET https://elsewhere.example/"); d.Detail != "" {
		t.Errorf("detail of an unknown host: %q", d.Detail)
	}
}

func TestPathPatterns(t *testing.T) {
	w := with(t, rules(`
	- {name: a, hosts: [a.example], paths: ["/v1/**"]}
	- {name: b, hosts: [b.example], paths: ["/*/x", /y/x/z, /y/w, /]}
	- {name: c, hosts: [c.example], paths: [/café/%2A, /a%3Ab, "/sp ace"]}
	- {name: d, hosts: [d.example], paths: ["/**"]}
	- {name: e, hosts: [e.example], paths: ["/a/b", "/a/b/**", "/a/*", "/a/b/c"]}
	- {name: f, hosts: [f.example], paths: ["/x/*/y/**"]}`))
	w.allow("GET https://a.example/v1/")
	w.allow("GET https://a.example/v1/x/y")
	w.deny(policy.PathNotAllowed, "GET https://a.example/v1")
	w.deny(policy.PathNotAllowed, "GET https://a.example/v10/x")
	w.deny(policy.PathNotAllowed, "GET https://a.example/V1/x")
	w.allow("GET https://b.example/")
	w.allow("GET https://b.example/anything/x")
	w.allow("GET https://b.example/y/x")
	w.allow("GET https://b.example/y/x/z")
	w.allow("GET https://b.example/y/w")
	w.deny(policy.PathNotAllowed, "GET https://b.example/y/")
	w.deny(policy.PathNotAllowed, "GET https://b.example/x")
	w.allow("GET https://c.example/caf%C3%A9/*")
	w.allow("GET https://c.example/caf%c3%a9/%2a")
	w.allow("GET https://c.example/a:b")
	w.allow("GET https://c.example/a%3ab")
	w.allow("GET https://c.example/sp%20ace")
	w.deny(policy.PathNotAllowed, "GET https://c.example/caf%C3%A9/x")
	w.allow("GET https://d.example/")
	w.allow("GET https://d.example/a")
	w.allow("GET https://e.example/a/b")
	w.allow("GET https://e.example/a/b/c/d")
	w.allow("GET https://e.example/a/c")
	w.deny(policy.PathNotAllowed, "GET https://e.example/a/c/d")
	w.deny(policy.PathNotAllowed, "GET https://e.example/a/")
	w.allow("GET https://f.example/x/1/y/2/3")
	w.deny(policy.PathNotAllowed, "GET https://f.example/x/1/z/2")
}

func TestA06HostPatternsGoByLabel(t *testing.T) {
	w := with(t, rules(`
	- {name: below, hosts: ["*.allowed.test"]}
	- {name: middle, hosts: [api.*.cloud.test, "*.eu.*.cloud.test"]}
	- {name: idn, hosts: [MÜNCHEN.example, "*.straße.example"]}`))
	w.allow("GET https://x.allowed.test/")
	w.allow("GET https://y.x.allowed.test/")
	w.allow("GET https://api.eu.cloud.test/")
	w.allow("GET https://a.b.eu.west.cloud.test/")
	w.allow("GET https://xn--mnchen-3ya.example/")
	w.allow("GET https://www.xn--strae-oqa.example/")
	for _, host := range []string{"allowed.test", "evilallowed.test", "x.allowed.test.evil", "test", "api.cloud.test", "api.a.b.cloud.test", "eu.west.cloud.test", "cloud.test", "xn--strae-oqa.example"} {
		w.deny(policy.NotInAllowlist, "GET https://"+host+"/")
	}
}

func TestA08AddressesNeedACIDR(t *testing.T) {
	w := with(t, rules(`
	- {name: every-name, hosts: ["*"]}
	- {name: net, hosts: [10.1.0.0/16, "2001:db8::/32", 192.0.2.7/32]}
	- {name: no-deletes, action: deny, hosts: ["*"], methods: [DELETE]}`))
	w.allow("GET https://10.1.2.3/")
	w.allow("GET https://[2001:db8::1]/")
	w.allow("GET https://192.0.2.7/")
	w.allow("GET https://any.name.example/")
	w.deny(policy.NotInAllowlist, "GET https://10.2.0.1/")
	w.deny(policy.NotInAllowlist, "GET https://[2001:db9::1]/")
	w.deny(policy.DeniedByRule, "DELETE https://10.1.2.3/")
}

func TestAllowlistIsEveryMethodAndPathOnTheUsualPorts(t *testing.T) {
	w := with(t, document("p", "enforce", "{namespaces: [support]}", `[pypi.pkg.example, "*.files.example"]`, ""))
	if d := w.allow("GET https://pypi.pkg.example/simple/x"); d.Rule != "allowlist" {
		t.Errorf("rule %q", d.Rule)
	}
	w.allow("DELETE http://pypi.pkg.example/simple/x")
	w.allow("GET https://a.files.example/")
	w.deny(policy.PortNotAllowed, "GET https://pypi.pkg.example:8443/")
	w.deny(policy.WebSocketNotAllowed, "GET wss://pypi.pkg.example/")
	w.deny(policy.AmbiguousPath, "GET https://pypi.pkg.example/a//b")
}

func TestDenyBeatsAllowWhateverTheOrderAndPolicy(t *testing.T) {
	allow, deny := `
	- {name: all, hosts: [x.example], scheme: any, ports: [443, 80, 8080]}`, `
	- {name: no-x, action: deny, hosts: ["*.example"], paths: ["/admin/**"]}`
	for _, files := range [][]string{
		{rules(allow + deny)}, {rules(deny + allow)},
		{document("a", "enforce", "{namespaces: [support]}", "[]", allow), document("b", "enforce", "{serviceAccounts: [support-bot]}", "[]", deny)},
	} {
		w := with(t, files...)
		w.allow("GET https://x.example/")
		w.deny(policy.DeniedByRule, "GET https://x.example/admin/x")
		w.deny(policy.DeniedByRule, "GET http://x.example:8080/admin/x")
	}
}

func TestSeveralPoliciesUnite(t *testing.T) {
	w := with(t, document("a", "enforce", "{namespaces: [support]}", "[]", `
	- {name: one, hosts: [x.example], limits: {rate: 10/min, requestBytes: 5k}, addresses: [10.0.0.0/8], recordPath: hash}
	- {name: two, hosts: [y.example]}`), document("b", "enforce", "{namespaces: [support]}", "[]", `
	- {name: one, hosts: ["*.example"], limits: {maxRequests: 7, requestBytes: 2k}, addresses: [192.168.0.0/16], recordPath: pattern, headers: {set: {X-From: b}}}`))
	d := w.allow("GET https://x.example/a")
	if d.Rule != "one" || d.Policy != "a" || len(d.Limits) != 2 || d.RequestBytes != 2000 || d.RecordPath != policy.RecordPattern || len(d.Egress.Addresses) != 2 || d.Egress.Key == "" {
		t.Errorf("%+v %+v", d, d.Egress)
	}
	if again := w.allow("GET https://x.example/b"); again.Egress != d.Egress {
		t.Error("what was united once is united again")
	}
	w.deny(policy.BodyTooLarge, "POST https://x.example/a", "Content-Length: 2001")
	w.allow("POST https://x.example/a", "Content-Length: 2000")
}

func TestManyMatchingRulesAreAllCounted(t *testing.T) {
	var text strings.Builder
	for _, name := range strings.Split("abcdefghijkl", "") {
		text.WriteString("\n\t- {name: " + name + ", hosts: [x.example, \"*.example\"], paths: [\"/**\", /y], limits: {maxRequests: 5}}")
	}
	w := with(t, rules(text.String()))
	if d := w.allow("GET https://x.example/y"); len(d.Limits) != 12 || d.Rule != "a" {
		t.Errorf("%d limits, rule %s", len(d.Limits), d.Rule)
	}
}

func TestNoPolicyForTheAgentDenies(t *testing.T) {
	set := compile(t, policy.Options{}, rules(supportBot), document("acc", "enforce", "{serviceAccounts: [runner]}", "[acc.example]", ""))
	for _, p := range []identity.Principal{{}, {AgentIdentity: "support-bot"}, {Namespace: "support"}, {Namespace: "support", ServiceAccount: "x"}, {Namespace: "x", ServiceAccount: "support-bot"}, {Claimed: "support/support-bot"}} {
		world{t, set.For(p)}.deny(policy.NoPolicyForAgent, "POST https://api.openai.com/v1/chat/completions")
	}
	world{t, set.For(identity.Principal{Namespace: "any", ServiceAccount: "runner"})}.allow("GET https://acc.example/")
	if set.For(bot) != set.For(bot) {
		t.Error("the same agent has two views")
	}
}

func TestPromise01TheZeroValuesDeny(t *testing.T) {
	var nothing *policy.Set
	req := parse(t, "GET https://x.example/")
	v := nothing.For(bot)
	if d := v.Decide(req); d.Verdict != policy.Deny || d.Reason != policy.NoPolicyForAgent {
		t.Errorf("a nil Set: %+v", d)
	}
	if h := v.Host(req.Authority); h.Possible || h.Reason != policy.NoPolicyForAgent {
		t.Errorf("a nil Set: %+v", h)
	}
	if v.Revision() != "" || nothing.Revision() != "" || v.Observes() {
		t.Error("a nil Set has a revision or observes")
	}
	if d := v.DecideBody(req, nil); d.Verdict != policy.Deny {
		t.Errorf("a nil Set: %+v", d)
	}
	if p := (policy.Decision{}).Permit(req); p.Covers(req) || p.Covers(nil) || p.Egress() != nil {
		t.Error("the zero decision permits")
	}
	if p := (policy.Decision{Verdict: policy.Allow, Egress: &policy.Egress{}}).Permit(req); p.Covers(req) {
		t.Error("a decision made by hand permits")
	}
	if (policy.Permit{}).Covers(&canon.Request{}) || (policy.Permit{}).Covers(nil) {
		t.Error("the zero permit covers something")
	}
	empty, _, err := policy.Compile(nil, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := world{t, empty.For(bot)}
	w.deny(policy.NoPolicyForAgent, "GET https://x.example/")
	w.deny(policy.NoPolicyForAgent, "CONNECT https://x.example")
	everything := with(t, document("p", "observe", "{namespaces: [support]}", `["*"]`, ""))
	if d := everything.v.Decide(&canon.Request{}); d.Verdict != policy.Deny {
		t.Errorf("the zero request: %+v", d)
	}
}

func TestAPermitCoversOneRequest(t *testing.T) {
	w := with(t, rules(supportBot))
	one, two := parse(t, "GET https://files.example/1"), parse(t, "GET https://files.example/2")
	d := w.v.Decide(one)
	if d.Permit(two).Covers(two) || d.Permit(two).Covers(one) {
		t.Error("a decision on one request permits another")
	}
	p := d.Permit(one)
	if !p.Covers(one) || p.Covers(two) {
		t.Error("a permit does not cover its request alone")
	}
	one.FromTunnel(nextID(), one.Authority)
	if p.Covers(one) || d.Permit(one).Covers(one) {
		t.Error("a permit covers the next request in the same memory")
	}
}

func TestHeaderEditsAreMadeBeforeThePermit(t *testing.T) {
	w := with(t, rules(`
	- name: edit
	  hosts: [x.example]
	  headers:
	    set: {Authorization: Bearer engine, X-A: b}
	    remove: [Cookie]`))
	req := parse(t, "GET https://x.example/", "Authorization: Bearer agent", "Cookie: a=b", "Accept: */*")
	d := w.v.Decide(req)
	p := d.Permit(req)
	for name, edited := range map[string]bool{"authorization": true, "X_A": true, "COOKIE": true, "Cookie2": false, "X-B": false, "": false} {
		if p.Edits([]byte(name)) != edited || (policy.Permit{}).Edits([]byte(name)) {
			t.Errorf("Edits(%s) = %v", name, !edited)
		}
	}
	var got []string
	for _, f := range req.Fields {
		got = append(got, string(f.Name)+": "+string(f.Value))
	}
	if want := []string{"Authorization: Bearer engine", "Accept: */*", "X-A: b"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestP02EncodedSlashIsNoSeparator(t *testing.T) {
	w := with(t, rules(`
	- {name: npm, hosts: [npm.example], paths: ["/*"], path: {encodedSlash: allow}}
	- {name: two, hosts: [two.example], paths: ["/a/b"], path: {encodedSlash: allow}}
	- {name: lit, hosts: [lit.example], paths: [/@scope%2fpkg], path: {encodedSlash: allow}}
	- {name: strict, hosts: [strict.example], paths: ["/**"]}
	- {name: guard, action: deny, hosts: ["*.example"], paths: ["/admin/**"]}`))
	w.allow("GET https://npm.example/@scope%2fpkg")
	w.allow("GET https://lit.example/@scope%2Fpkg")
	w.deny(policy.AmbiguousPath, "GET https://two.example/a%2fb")
	w.deny(policy.AmbiguousPath, "GET https://strict.example/a%2fb")
	w.deny(policy.DeniedByRule, "GET https://npm.example/admin%2fx")
	w.allow("GET https://npm.example/administrator%2fx")
}

func TestP04DoubleSlashAndSemicolon(t *testing.T) {
	w := with(t, rules(`
	- {name: strict, hosts: [strict.example], paths: ["/**"]}
	- {name: semi, hosts: [semi.example], paths: ["/**", "/a;v=1"], path: {semicolon: allow}}
	- {name: double, hosts: [double.example], paths: ["/**", "/a//b"], path: {doubleSlash: allow}}
	- {name: all, hosts: [all.example], path: {doubleSlash: allow, semicolon: allow, encodedSlash: allow}}
	- {name: guard, action: deny, hosts: ["*"], paths: ["/admin/**", "/x/n%3Bm"]}`))
	w.deny(policy.AmbiguousPath, "GET https://strict.example/a//b")
	w.deny(policy.AmbiguousPath, "GET https://strict.example/a;b")
	w.allow("GET https://semi.example/a;v=1")
	w.deny(policy.AmbiguousPath, "GET https://semi.example//a;v=1")
	w.allow("GET https://double.example/a//b")
	w.deny(policy.DeniedByRule, "GET https://semi.example/admin;x/y")
	w.deny(policy.AmbiguousPath, "GET https://strict.example/a%3Bb")
	w.allow("GET https://semi.example/a%3bv=1")
	w.deny(policy.DeniedByRule, "GET https://semi.example/admin%3bx/y")
	w.deny(policy.DeniedByRule, "GET https://semi.example/admin%3Bx;y/z")
	w.deny(policy.DeniedByRule, "GET https://all.example//admin%3Bx%2fy")
	w.deny(policy.DeniedByRule, "GET https://all.example/x/n%3Bm;v=1") // to who cuts parameters off, then decodes
	w.deny(policy.DeniedByRule, "GET https://all.example/x%2Fn%3Bm")
	w.allow("GET https://all.example/x/n;v=1%3Bm")
	w.deny(policy.DeniedByRule, "GET https://double.example//admin/y")
	w.deny(policy.DeniedByRule, "GET https://all.example//admin;x%2fy")
	w.allow("GET https://all.example//adm;x%2fy")
}

func TestA19MethodOverride(t *testing.T) {
	const header = "X-HTTP-Method-Override: DELETE"
	w := with(t, document("p", "enforce", "{namespaces: [support]}", "[free.example]", `
	- {name: strict, hosts: [strict.example], methods: [POST]}
	- {name: open, hosts: [open.example]}
	- {name: opted, hosts: [opted.example], methods: [POST], methodOverride: allow}
	- {name: judged, hosts: [judged.example], when: 'request.headers["x-a"] == ["1"]'}
	- {name: guarded, hosts: [guarded.other], methods: [POST], methodOverride: allow}
	- {name: no-deletes, action: deny, hosts: ["*.other"], methods: [DELETE]}
	- {name: only-http, action: deny, hosts: ["opted.example"], methods: [DELETE], scheme: http}`))
	w.deny(policy.MethodOverride, "POST https://strict.example/", header)
	w.deny(policy.MethodOverride, "POST https://strict.example/", "X-Original-URL: /admin")
	w.deny(policy.MethodOverride, "POST https://strict.example/?_method=DELETE")
	w.deny(policy.MethodOverride, "POST https://judged.example/", header, "X-A: 1")
	w.allow("POST https://judged.example/", "X-A: 1")
	w.allow("POST https://open.example/", header)
	w.allow("POST https://free.example/", header)
	w.allow("POST https://opted.example/", header)
	w.deny(policy.DeniedByRule, "POST https://guarded.other/", header)
	w.allow("POST https://guarded.other/")
}

func TestDecideDoesNotAllocate(t *testing.T) {
	w := with(t, rules(supportBot), document("more", "enforce", "{namespaces: [support]}", "[]", `
	- {name: also, hosts: ["*.openai.com"], limits: {rate: 5/s}}`))
	for _, line := range []string{"POST https://api.openai.com/v1/chat/completions", "GET https://npm.pkg.example/%40a%2fb", "GET https://files.example/caf%C3%A9", "CONNECT https://x.example"} {
		req := parse(t, line)
		w.v.Decide(req)
		if n := testing.AllocsPerRun(100, func() { w.v.Decide(req) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

func TestAViewIsSharedByManyConnections(t *testing.T) {
	set := compile(t, policy.Options{}, rules(supportBot), document("more", "enforce", "{namespaces: [support]}", "[]", `
	- {name: also, hosts: ["*.openai.com"], limits: {rate: 5/s}}
	- {name: when, hosts: ["*.openai.com"], when: 'request.query["n"] != ["0"]', limits: {rate: 6/s}}`))
	var wg sync.WaitGroup
	for i := range 4 {
		req := parse(t, fmt.Sprintf("POST https://api.openai.com/v1/chat/completions?n=%d", i))
		wg.Go(func() {
			for range 200 {
				if d := set.For(bot).Decide(req); d.Verdict != policy.Allow || len(d.Limits) < 2 {
					t.Errorf("%+v", d)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAnEgressKeepsWhatItWouldDialToo(t *testing.T) {
	egress := func(pins string, prefixes ...string) *policy.Egress {
		e := new(policy.Egress)
		for _, p := range prefixes {
			e.Addresses = append(e.Addresses, netip.MustParsePrefix(p))
		}
		for _, c := range pins {
			e.SPKIPins = append(e.SPKIPins, [32]byte{byte(c)})
		}
		return e
	}
	for _, row := range []struct {
		what     string
		now, old *policy.Egress
		keeps    bool
	}{
		{"the default", egress(""), egress(""), true},
		{"addresses more", egress("", "10.0.0.0/8"), egress(""), true},
		{"a wider range", egress("", "10.0.0.0/8"), egress("", "10.1.0.0/16"), true},
		{"a narrower range", egress("", "10.1.0.0/16"), egress("", "10.0.0.0/8"), false},
		{"another range", egress("", "10.1.0.0/16"), egress("", "10.2.0.0/16"), false},
		{"none of two", egress("", "10.1.0.0/16", "fd00::/8"), egress("", "10.1.0.0/16", "10.2.0.0/16"), false},
		{"no addresses", egress(""), egress("", "10.0.0.0/8"), false},
		{"no pins any more", egress(""), egress("ab"), true},
		{"a pin more", egress("abc"), egress("ab"), true},
		{"a pin less", egress("a"), egress("ab"), false},
		{"pins where there were none", egress("a"), egress(""), false},
	} {
		if got := row.now.Keeps(row.old); got != row.keeps {
			t.Errorf("%s: %t", row.what, got)
		}
	}
}
