package policy_test

import (
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

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
	if h := v.Host(canon.Authority{Host: "a.example"}); h.Possible {
		t.Error("an authority without a port is possible")
	}
}

// A name is asked for before there is a port.
func TestA20NamedSaysWhatIsPossibleOnAnyPort(t *testing.T) {
	file := document("p", "enforce", "{namespaces: [support]}", "[list.example]", `
	- {name: odd, hosts: [odd.example, "*.deep.example"], ports: [8443]}
	- {name: barred, action: deny, hosts: [bad.deep.example, odd.example], ports: [443]}
	- {name: barred-all, action: deny, hosts: [worse.deep.example], scheme: any, ports: [443, 80, 8443]}`)
	v := compile(t, policy.Options{}, file).For(bot)
	for name, want := range map[string]policy.Reason{
		"list.example": "", "odd.example": "", "a.deep.example": "", "bad.deep.example": "",
		"worse.deep.example": policy.DeniedByRule, "deep.example": policy.NotInAllowlist, "nowhere.example": policy.NotInAllowlist, "": policy.NotInAllowlist,
	} {
		if got := v.Named(name); got.Possible != (want == "") || got.Reason != want {
			t.Errorf("%q: %+v, want reason %q", name, got, want)
		}
	}
	watched := compile(t, policy.Options{Observe: true}, file).For(bot)
	if h := watched.Named("nowhere.example"); !h.Possible || !h.Observed {
		t.Errorf("observed: %+v", h)
	}
	if h := watched.Named(""); h.Possible {
		t.Error("observed: no name is possible")
	}
	if h := (*policy.Set)(nil).For(bot).Named("list.example"); h.Possible || h.Reason != policy.NoPolicyForAgent {
		t.Errorf("no set: %+v", h)
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
