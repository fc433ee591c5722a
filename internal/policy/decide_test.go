package policy_test

import (
	"slices"
	"strings"
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
	d.Permit(req)
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
	- {name: guard, action: deny, hosts: ["*"], paths: ["/admin/**"]}`))
	w.deny(policy.AmbiguousPath, "GET https://strict.example/a//b")
	w.deny(policy.AmbiguousPath, "GET https://strict.example/a;b")
	w.allow("GET https://semi.example/a;v=1")
	w.deny(policy.AmbiguousPath, "GET https://semi.example//a;v=1")
	w.allow("GET https://double.example/a//b")
	w.deny(policy.DeniedByRule, "GET https://semi.example/admin;x/y")
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
	- {name: guarded, hosts: [guarded.other], methods: [POST], methodOverride: allow}
	- {name: no-deletes, action: deny, hosts: ["*.other"], methods: [DELETE]}
	- {name: only-http, action: deny, hosts: ["opted.example"], methods: [DELETE], scheme: http}`))
	w.deny(policy.MethodOverride, "POST https://strict.example/", header)
	w.deny(policy.MethodOverride, "POST https://strict.example/", "X-Original-URL: /admin")
	w.deny(policy.MethodOverride, "POST https://strict.example/?_method=DELETE")
	w.allow("POST https://open.example/", header)
	w.allow("POST https://free.example/", header)
	w.allow("POST https://opted.example/", header)
	w.deny(policy.DeniedByRule, "POST https://guarded.other/", header)
	w.allow("POST https://guarded.other/")
}

func TestU04WebSocketOnlyWhereTheRuleSaysSo(t *testing.T) {
	w := with(t, rules(`
	- {name: ws, hosts: [ws.example], paths: [/socket], websocket: true}
	- {name: plain, hosts: [plain.example]}`))
	if d := w.allow("GET wss://ws.example/socket"); !d.WebSocket {
		t.Error("allowed, and not as a WebSocket")
	}
	if d := w.allow("GET https://ws.example/socket"); d.WebSocket {
		t.Error("a plain request is allowed as a WebSocket")
	}
	w.deny(policy.WebSocketNotAllowed, "GET wss://plain.example/socket")
	w.deny(policy.PathNotAllowed, "GET wss://ws.example/other")
	w.deny(policy.UpgradeNotAllowed, "GET https://ws.example/socket", "Connection: Upgrade", "Upgrade: tcp")
}

func TestTunnelsMatchPassthroughRulesOnly(t *testing.T) {
	w := with(t, document("p", "enforce", "{namespaces: [support]}", "[list.example]", `
	- {name: pinned, hosts: [pinned.example, "*.pin.example"], tls: passthrough, limits: {maxRequests: 5}}
	- {name: odd-port, hosts: [pinned.example], ports: [8443, 9443], tls: passthrough}
	- {name: plain, hosts: [plain.example]}
	- {name: barred, action: deny, hosts: [bad.pin.example]}`))
	if d := w.allow("CONNECT https://pinned.example"); d.Rule != "pinned" || len(d.Limits) != 1 {
		t.Errorf("%+v", d)
	}
	w.allow("CONNECT https://pinned.example:9443")
	w.allow("CONNECT https://a.pin.example")
	w.deny(policy.DeniedByRule, "CONNECT https://bad.pin.example")
	w.deny(policy.TunnelNotAllowed, "CONNECT https://pinned.example:22")
	w.deny(policy.TunnelNotAllowed, "CONNECT https://plain.example")
	w.deny(policy.TunnelNotAllowed, "CONNECT https://list.example")
	w.deny(policy.NotInAllowlist, "GET https://pinned.example/")
}

func TestA20HostSaysWhatIsPossible(t *testing.T) {
	set := compile(t, policy.Options{}, document("p", "enforce", "{namespaces: [support]}", "[list.example]", `
	- {name: pinned, hosts: [pinned.example], tls: passthrough}
	- {name: https, hosts: [a.example], paths: [/only], noSNI: allow}
	- {name: http, hosts: [a.example], scheme: http, ports: [80, 8080]}
	- {name: any, hosts: [any.example], scheme: any}
	- {name: barred, action: deny, hosts: [list.example, b.example], scheme: https}
	- {name: b, hosts: [b.example]}
	- {name: cidr, hosts: [10.0.0.0/8]}`))
	v := set.For(bot)
	for _, row := range []struct {
		authority string
		want      policy.HostVerdict
	}{
		{"a.example:443", policy.HostVerdict{Possible: true, HTTPS: true, NoSNI: true, Rule: "https", Policy: "p"}},
		{"a.example:8080", policy.HostVerdict{Possible: true, HTTP: true, Rule: "http", Policy: "p"}},
		{"a.example:22", policy.HostVerdict{Reason: policy.PortNotAllowed}},
		{"any.example:443", policy.HostVerdict{Possible: true, HTTPS: true, Rule: "any", Policy: "p"}},
		{"any.example:80", policy.HostVerdict{Possible: true, HTTP: true, Rule: "any", Policy: "p"}},
		{"pinned.example:443", policy.HostVerdict{Possible: true, Passthrough: true, Rule: "pinned", Policy: "p"}},
		{"list.example:443", policy.HostVerdict{Reason: policy.DeniedByRule, Rule: "barred", Policy: "p"}},
		{"list.example:80", policy.HostVerdict{Possible: true, HTTP: true, Rule: "allowlist", Policy: "p"}},
		{"b.example:443", policy.HostVerdict{Reason: policy.DeniedByRule, Rule: "barred", Policy: "p"}},
		{"10.9.9.9:443", policy.HostVerdict{Possible: true, HTTPS: true, Rule: "cidr", Policy: "p"}},
		{"11.9.9.9:443", policy.HostVerdict{Reason: policy.NotInAllowlist}},
		{"nowhere.example:443", policy.HostVerdict{Reason: policy.NotInAllowlist}},
	} {
		a, err := canon.ParseAuthority(row.authority, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Host(a); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.authority, got, row.want)
		}
		if n := testing.AllocsPerRun(10, func() { v.Host(a) }); n != 0 {
			t.Errorf("%s: %v allocations", row.authority, n)
		}
	}
	if h := v.Host(canon.Authority{}); h.Possible {
		t.Error("the zero authority is possible")
	}
}

func TestObserveRelaxesThePolicyVerdictOnly(t *testing.T) {
	w := world{t, compile(t, policy.Options{}, document("p", "observe", "{namespaces: [support]}", "[]", `
	- {name: chat, hosts: [x.example], methods: [POST], paths: [/chat], limits: {requestBytes: 10}}
	- {name: reads, hosts: [y.example], when: 'request.body.json.a == 1'}
	- {name: get, hosts: [get.example]}
	- {name: no-x, action: deny, hosts: [z.example]}`)).For(bot)}
	observed := func(reason policy.Reason, line string, headers ...string) policy.Decision {
		t.Helper()
		d := w.decide(line, headers...)
		if d.Verdict != policy.Allow || !d.Observed || d.Reason != reason {
			t.Errorf("%s: %+v, want %s to be observed", line, d, reason)
		}
		return d
	}
	w.allow("POST https://x.example/chat")
	observed(policy.MethodNotAllowed, "GET https://x.example/chat")
	observed(policy.NotInAllowlist, "GET https://elsewhere.example:8443/")
	observed(policy.DeniedByRule, "GET https://z.example/")
	if d := observed(policy.WebSocketNotAllowed, "GET wss://get.example/chat"); !d.WebSocket {
		t.Error("not a WebSocket")
	}
	w.deny(policy.AmbiguousPath, "GET https://x.example/a//b")
	w.deny(policy.AmbiguousPath, "GET https://elsewhere.example/a%2fb")
	w.deny(policy.MethodOverride, "POST https://x.example/other", "X-Method-Override: GET")
	w.deny(policy.UpgradeNotAllowed, "GET https://x.example/chat", "Connection: upgrade", "Upgrade: tcp")
	w.deny(policy.TunnelNotAllowed, "CONNECT https://x.example")
	w.deny(policy.BodyTooLarge, "POST https://x.example/chat", "Content-Length: 11")
	w.denyBody(policy.BadBody, "https://y.example/", `{"a":1,"a":2}`, json)
	if d := w.post("https://y.example/", `{"a":2}`, json); !d.Observed || d.Reason != policy.ConditionNotMet {
		t.Errorf("%+v", d)
	}
	a, _ := canon.ParseAuthority("elsewhere.example:8443", 0)
	if h := w.v.Host(a); !h.Possible || !h.Observed || !h.HTTPS || h.Passthrough || h.NoSNI {
		t.Errorf("%+v", h)
	}
	if !w.v.Observes() {
		t.Error("does not observe")
	}
}

func TestObserveNeedsAllPoliciesOfTheAgent(t *testing.T) {
	file := document("a", "observe", "{namespaces: [support]}", "[a.example]", "")
	other := document("b", "enforce", "{serviceAccounts: [support-bot]}", "[b.example]", "")
	with(t, file, other).deny(policy.NotInAllowlist, "GET https://x.example/")
	set := compile(t, policy.Options{Observe: true}, file, other)
	for _, p := range []identity.Principal{bot, {AgentIdentity: "nobody knows"}} {
		if d := (world{t, set.For(p)}).decide("GET https://x.example/"); !d.Observed {
			t.Errorf("%+v: %+v", p, d)
		}
	}
}

func TestRecordPathOfADenialIsTheCarefulOne(t *testing.T) {
	w := with(t, rules(`
	- {name: hook, hosts: [hooks.example], methods: [POST], paths: ["/services/**"], recordPath: hash}
	- {name: pat, hosts: [pat.example], methods: [POST], paths: ["/k/*"], recordPath: pattern}
	- {name: all, hosts: ["*.example"], methods: [PUT], paths: ["/**"]}
	- {name: full, hosts: ["pat.example"], paths: ["/k/shown"], recordPath: full}`))
	if d := w.allow("POST https://hooks.example/services/secret"); d.RecordPath != policy.RecordHash {
		t.Errorf("%v", d.RecordPath)
	}
	if d := w.deny(policy.MethodNotAllowed, "GET https://hooks.example/services/secret"); d.RecordPath != policy.RecordHash {
		t.Errorf("a denial shows the path: %v", d.RecordPath)
	}
	if d := w.allow("POST https://pat.example/k/secret"); d.RecordPath != policy.RecordPattern || d.Pattern != "/k/*" {
		t.Errorf("%v %q", d.RecordPath, d.Pattern)
	}
	if d := w.deny(policy.MethodNotAllowed, "GET https://pat.example/k/secret"); d.RecordPath != policy.RecordHash {
		t.Errorf("a denial has no pattern, and records %v", d.RecordPath)
	}
	if d := w.allow("POST https://pat.example/k/shown"); d.RecordPath != policy.RecordFull {
		t.Errorf("of two rules the one that records most holds: %v", d.RecordPath)
	}
}

func TestFlagsMakeAPolicyForEverybody(t *testing.T) {
	o := policy.Options{AnyAgent: true, AllowHosts: []string{"pypi.pkg.example"}}
	o.Limits.MaxRequests = 9
	set := compile(t, o, "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: laptop}\nspec: {rules: [{name: r, hosts: [x.example], limits: {rate: 1/s}}]}")
	w := world{t, set.For(identity.Principal{AgentIdentity: "me"})}
	if d := w.allow("GET https://pypi.pkg.example/"); d.Policy != "flags" || len(d.Limits) != 1 || d.Limits[0].Scope != "flags" {
		t.Errorf("%+v", d)
	}
	if d := w.allow("GET https://x.example/"); len(d.Limits) != 2 {
		t.Errorf("%+v", d.Limits)
	}
	w.deny(policy.NotInAllowlist, "GET https://y.example/")
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
