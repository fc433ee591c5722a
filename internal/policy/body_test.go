package policy_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/race"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

const gate = `
	- name: model-gate
	  hosts: [api.anthropic.com]
	  methods: [POST]
	  paths: [/v1/messages]
	  when: 'request.body.json.model in ["claude-sonnet-4-5"]'
	  limits: {requestBytes: 100k}
	- {name: head, hosts: [head.example], when: 'request.method == "GET" && request.query["q"] == ["1"] && request.headers["x-team"][0].startsWith("a") && request.port == 443 && request.scheme == "https" && request.host.endsWith(".example") && request.path == "/a"'}
	- {name: optional, hosts: [optional.example], when: '!has(request.body.json) || request.body.json.n <= 3'}
	- {name: free, hosts: [mixed.example]}
	- {name: no-opus, action: deny, hosts: [mixed.example], methods: [POST], when: 'request.body.json.model == "opus"'}
	- {name: any, hosts: [plain.example]}
	- {name: unneeded, hosts: [plain.example], when: 'request.body.json.a == 1'}
	- {name: counted, hosts: [counted.example]}
	- {name: count-opus, hosts: [counted.example], when: 'request.body.json.model == "opus"', limits: {maxRequests: 1}}
`

const messages = "https://api.anthropic.com/v1/messages"

func squeeze(t *testing.T, kind, body string) string {
	t.Helper()
	var b bytes.Buffer
	if kind == "gzip" {
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(body))
		_ = w.Close()
	} else {
		w := zlib.NewWriter(&b)
		_, _ = w.Write([]byte(body))
		_ = w.Close()
	}
	return b.String()
}

const good = `{"model":"claude-sonnet-4-5","messages":[]}`

func TestConditionsReadTheBody(t *testing.T) {
	w := with(t, rules(gate))
	w.allowBody(messages, good, json)
	w.denyBody(policy.ConditionNotMet, messages, `{"model":"claude-opus-4"}`, json)
	w.denyBody(policy.ConditionNotMet, messages, `{"other":1}`, json)
	w.denyBody(policy.ConditionNotMet, messages, `[1]`, json)
	w.deny(policy.ConditionNotMet, "POST "+messages)
	w.deny(policy.MethodNotAllowed, "GET "+messages)
	w.allow("GET https://optional.example/")
	w.allowBody("https://optional.example/", `{"n":3.0}`, json)
	w.denyBody(policy.ConditionNotMet, "https://optional.example/", `{"n":3.5}`, json)
	w.denyBody(policy.ConditionNotMet, "https://optional.example/", `{"n":"3"}`, json)
}

func TestConditionsReadTheHead(t *testing.T) {
	w := with(t, rules(gate))
	w.allow("GET https://head.example/a?q=1", "X-Team: alpha")
	w.deny(policy.ConditionNotMet, "GET https://head.example/a?q=1&q=2", "X-Team: alpha")
	w.deny(policy.ConditionNotMet, "GET https://head.example/a?q=1", "X-Team: beta")
	w.deny(policy.ConditionNotMet, "GET https://head.example/a?q=1")
	w.deny(policy.ConditionNotMet, "GET https://head.example/a?q=1;q=1", "X-Team: alpha")
	w.deny(policy.ConditionNotMet, "GET https://head.example/a", "X-Team: alpha")
}

func TestADenyConditionThatFailsDenies(t *testing.T) {
	w := with(t, rules(gate))
	w.allowBody("https://mixed.example/", `{"model":"sonnet"}`, json)
	w.denyBody(policy.DeniedByRule, "https://mixed.example/", `{"model":"opus"}`, json)
	w.denyBody(policy.DeniedByRule, "https://mixed.example/", `{"modal":"sonnet"}`, json)
	w.deny(policy.DeniedByRule, "POST https://mixed.example/")
	w.allow("GET https://mixed.example/")
}

func TestABodyIsReadOnlyWhereARuleNeedsIt(t *testing.T) {
	w := with(t, rules(gate))
	needs := func(want bool, line string, headers ...string) {
		t.Helper()
		if d := w.decide(line, headers...); d.NeedBody != want {
			t.Errorf("%s: needs the body: %v, want %v", line, d.NeedBody, want)
		}
	}
	needs(true, "POST "+messages, "Content-Length: 5")
	needs(true, "POST "+messages, "Transfer-Encoding: chunked")
	needs(false, "POST "+messages, "Content-Length: 0")
	needs(false, "POST https://api.anthropic.com/v1/other", "Content-Length: 5")
	needs(false, "POST https://plain.example/", "Content-Length: 5")
	needs(true, "POST https://counted.example/", "Content-Length: 5")
	needs(true, "POST https://mixed.example/", "Content-Length: 5")
	if d := w.allowBody("https://counted.example/", `{"model":"opus"}`, json); len(d.Limits) != 1 {
		t.Errorf("%+v", d.Limits)
	}
	if d := w.v.DecideBody(parse(t, "POST https://plain.example/"), []byte("x")); d.Verdict != policy.Allow {
		t.Errorf("a body that nobody asked for: %+v", d)
	}
}

func TestARefusedBodyNamesTheRuleThatWantedIt(t *testing.T) {
	w := with(t, rules(gate+`
	- {name: second, hosts: [api.anthropic.com], when: 'request.body.json.a == 1'}`))
	for body, reason := range map[string]policy.Reason{"{": policy.BadBody, strings.Repeat(" ", 100_001): policy.BodyTooLarge} {
		if d := w.denyBody(reason, messages, body, json); d.Rule != "model-gate" || d.Policy != "support-bot" {
			t.Errorf("%s: rule %q of policy %q", reason, d.Rule, d.Policy)
		}
	}
	req := parse(t, "POST "+messages, "Transfer-Encoding: chunked", json)
	if d := w.v.DecideBody(req, make([]byte, 100_001)); d.Reason != policy.BodyTooLarge || d.Rule != "model-gate" {
		t.Errorf("%+v", d)
	}
	if d := w.denyBody(policy.BadBody, "https://mixed.example/", "{", json); d.Rule != "no-opus" {
		t.Errorf("rule %q", d.Rule)
	}
}

func TestStreamsAreNotReadForACondition(t *testing.T) {
	w := with(t, rules(gate))
	w.deny(policy.ConditionNotMet, "POST "+messages, "Transfer-Encoding: chunked", "Content-Type: application/grpc")
	w.deny(policy.DeniedByRule, "POST https://mixed.example/", "Transfer-Encoding: chunked", "Content-Type: application/grpc+proto")
}

func TestB01StrictJSON(t *testing.T) {
	w := with(t, rules(gate))
	for _, body := range []string{
		`{"model":"x","model":"claude-sonnet-4-5"}`,
		`{"model":"claude-sonnet-4-5","Model":"x"}`,
		`{"model":"claude-sonnet-4-5","m\u006fdel":"x"}`,
		`{"model":"claude-sonnet-4-5","k":1,"` + "\u212a" + `":2}`,
		`{"model":"claude-sonnet-4-5","a":{"s":1,"ſ":2}}`,
		"\ufeff" + good, "\xff\xfe{\x00}\x00",
		`{"model":"claude-sonnet-4-5` + "\xff" + `"}`, `{"model":"claude-sonnet-4-5","a":"\n` + "\xc0\xaf" + `"}`,
		`{"a":"\ud800","model":"claude-sonnet-4-5"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, `{"a":"\ud800x"}`, `{"a":"\ud800\n"}`, `{"a":"\ud800\uzzzz"}`,
		`{"a":NaN}`, `{"a":Infinity}`, `{"a":1e999}`, `{"a":-1e999}`, `{"a":9007199254740993}`, `{"a":9007199254740992}`, `{"a":20000000000000010.0}`, `{"a":-1e16}`, `{"a":1e-999}`,
		strings.Repeat("[", 65) + strings.Repeat("]", 65),
		good + "x", good + good, good + "\x00", " ", `{"a":1,}`, `[1,]`, `{'a':1}`, `{a:1}`, `{"a" 1}`, `{"a":1 "b":2}`, `[1 2]`, `{"a":`, `{"a`, `"a\`, `"\n`, `{"a"`, `{`, `[`,
		"{\"a\":\"\x01\"}", "\"\\n\x01\"", `"\x"`, `"\u12"`, `"\u12g4"`, `{"a\u0000b":1}`, `01`, `-`, `1.`, `.5`, `1e`, `1e+`, `+1`, `0x10`, `tru`, `nul`, `fals`, `// c` + "\n1",
	} {
		w.denyBody(policy.BadBody, messages, body, json)
		w.denyBody(policy.BadBody, "https://mixed.example/", body, json)
	}
	for _, body := range []string{
		good, " \r\n\t" + good + "\n", `{"model":"claude-sonnet-4-5","a":"\ud83d\ude00\"\\\/\b\f\n\r\té"}`, `{"model":"claude-sonnet-4-5","a":[1,-0,0.1,1e10,1.5E-3,9007199254740991,true,false,null,{},[],""]}`,
		`{"model":"claude-sonnet-4-5","a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`, `{"model":"claude-sonnet-4-5","a":0e-999}`,
	} {
		w.allowBody(messages, body, json)
	}
}

func TestB02ContentType(t *testing.T) {
	w := with(t, rules(gate))
	for _, header := range []string{"application/json", "Application/JSON ; charset=UTF-8", `application/json; charset="utf-8"`, "application/vnd.api+json", "application/json; profile=x"} {
		w.allowBody(messages, good, "Content-Type: "+header)
	}
	for _, header := range []string{"text/plain", "text/json", "application/jsonx", "application/json, text/plain", "application/json; charset=latin1", "application/json; charset=utf-16", "application/json; charset=utf-8; charset=utf-7", "application/json;", `application/json; x="a;charset=utf-7"`, "application/x y+json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"} {
		w.denyBody(policy.BadBody, messages, good, "Content-Type: "+header)
	}
	w.denyBody(policy.BadBody, messages, good)
	req := parse(t, "POST "+messages, "Content-Length: 43")
	req.SetField("Content-Type", "application/json")
	req.Fields = append(req.Fields, req.Fields[0])
	if d := w.v.DecideBody(req, []byte(good)); d.Reason != policy.BadBody {
		t.Errorf("two content types: %+v", d)
	}
}

func TestB03ContentEncoding(t *testing.T) {
	w := with(t, rules(gate))
	w.allowBody(messages, good, json, "Content-Encoding: identity")
	w.allowBody(messages, squeeze(t, "gzip", good), json, "Content-Encoding: GZip")
	w.allowBody(messages, squeeze(t, "gzip", good), json, "Content-Encoding: x-gzip")
	w.allowBody(messages, squeeze(t, "deflate", good), json, "Content-Encoding: deflate")
	w.denyBody(policy.BadBody, messages, good, json, "Content-Encoding: gzip")
	w.denyBody(policy.BadBody, messages, good, json, "Content-Encoding: deflate")
	w.denyBody(policy.BadBody, messages, good, json, "Content-Encoding: br")
	w.denyBody(policy.BadBody, messages, good, json, "Content-Encoding: zstd")
	w.denyBody(policy.BadBody, messages, squeeze(t, "gzip", squeeze(t, "gzip", good)), json, "Content-Encoding: gzip, gzip")
	w.denyBody(policy.BadBody, messages, squeeze(t, "gzip", good)+squeeze(t, "gzip", "x"), json, "Content-Encoding: gzip")
	w.denyBody(policy.BadBody, messages, squeeze(t, "deflate", good)+"x", json, "Content-Encoding: deflate")
	w.denyBody(policy.BadBody, messages, squeeze(t, "gzip", good)[:30], json, "Content-Encoding: gzip")
	w.denyBody(policy.ConditionNotMet, messages, squeeze(t, "gzip", `{"model":"x"}`), json, "Content-Encoding: gzip")
}

func TestB04R06BodiesAreBounded(t *testing.T) {
	w := with(t, rules(gate))
	long := `{"model":"claude-sonnet-4-5","a":"` + strings.Repeat("x", 100_000) + `"}`
	w.denyBody(policy.BodyTooLarge, messages, long, json)
	req := parse(t, "POST "+messages, "Transfer-Encoding: chunked", json)
	if d := w.v.Decide(req); !d.NeedBody || d.BodyLimit != 100_000 {
		t.Errorf("%+v", d)
	}
	if d := w.v.DecideBody(req, []byte(long)); d.Reason != policy.BodyTooLarge {
		t.Errorf("%+v", d)
	}
	if d := w.v.DecideBody(req, []byte(good)); d.Verdict != policy.Allow {
		t.Errorf("%+v", d)
	}
	var varied strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&varied, "%d,", i*i)
	}
	w.denyBody(policy.BodyTooLarge, messages, squeeze(t, "gzip", varied.String()), json, "Content-Encoding: gzip")
	bomb := squeeze(t, "gzip", `"`+strings.Repeat("x", 900_000)+`"`)
	w.denyBody(policy.BadBody, "https://optional.example/", bomb, json, "Content-Encoding: gzip")
	d := w.decide("POST https://optional.example/", fmt.Sprintf("Content-Length: %d", 1<<20))
	if d.BodyLimit != 1<<20 {
		t.Errorf("the default limit of a body is %d", d.BodyLimit)
	}
}

func TestB07WhatWasJudgedIsNotChanged(t *testing.T) {
	w := with(t, rules(gate))
	body := []byte(good)
	req := parse(t, "POST "+messages, json, fmt.Sprintf("Content-Length: %d", len(body)))
	w.v.DecideBody(req, body)
	if string(body) != good {
		t.Errorf("the body is now %q", body)
	}
}

func TestConditionsAreBounded(t *testing.T) {
	w := with(t, rules(`
	- {name: walk, hosts: [x.example], when: 'request.body.json.items.all(i, request.body.json.items.all(j, i == j))', limits: {requestBytes: 1Mi}}
	- {name: nested, hosts: [n.example], when: 'request.body.json.messages.all(m, m.content.all(c, c.type == "text"))'}
	- {name: dyn, hosts: [dyn.example], when: 'request.body.json.flag'}`))
	w.allowBody("https://x.example/", `{"items":[1,1]}`, json)
	if !race.Enabled { // a million steps of one goroutine
		w.denyBody(policy.ConditionNotMet, "https://x.example/", `{"items":[`+strings.Repeat("1,", 400)+`1]}`, json)
	}
	w.allowBody("https://dyn.example/", `{"flag":true}`, json)
	w.denyBody(policy.ConditionNotMet, "https://dyn.example/", `{"flag":1}`, json)
	w.denyBody(policy.ConditionNotMet, "https://dyn.example/", `{"flag":null}`, json)
}

func TestMergedRequestBytesBoundTheBodyThatIsRead(t *testing.T) {
	w := with(t, rules(`
	- {name: small, hosts: [x.example], limits: {requestBytes: 10}}
	- {name: no-bad, action: deny, hosts: [x.example], when: 'request.body.json.bad'}`))
	req := parse(t, "POST https://x.example/", "Transfer-Encoding: chunked", json)
	if d := w.v.Decide(req); !d.NeedBody || d.BodyLimit != 10 {
		t.Errorf("%+v", d)
	}
}

func TestAHeaderThatIsAnotherOneToSomeSatisfiesNoCondition(t *testing.T) {
	w := with(t, rules(`
	- {name: read, hosts: [deny.example]}
	- {name: no-role, action: deny, hosts: [deny.example], when: '"x-role" in request.headers'}
	- {name: dry, hosts: [dry.example], when: '"x-dry-run" in request.headers'}
	- {name: all, hosts: [all.example], when: 'request.headers.all(n, n != "x-role")'}
	- {name: named, hosts: [named.example], when: 'request.headers["api_key"] == ["1"] || has(request.headers.other_key)'}
	- {name: no-look, hosts: [elsewhere.example], when: 'request.method == "GET"'}`))
	w.allow("GET https://deny.example/")
	w.allow("GET https://deny.example/", "X-Other: 1")
	w.deny(policy.DeniedByRule, "GET https://deny.example/", "X-Role: admin")
	w.deny(policy.DeniedByRule, "GET https://deny.example/", "X_Role: admin")
	w.deny(policy.DeniedByRule, "GET https://deny.example/", "x-other_name: 1") // a condition may go through all names
	w.allow("GET https://dry.example/", "X-Dry-Run: 1")
	w.deny(policy.ConditionNotMet, "GET https://dry.example/", "X_Dry_Run: 1")
	w.deny(policy.ConditionNotMet, "GET https://dry.example/", "X-Dry-Run: 1", "X_Dry_Run: 0")
	w.deny(policy.ConditionNotMet, "GET https://all.example/", "X_Role: admin")
	w.allow("GET https://named.example/", "Api_Key: 1")
	w.allow("GET https://named.example/", "other_key: 1")
	w.deny(policy.ConditionNotMet, "GET https://named.example/", "Api-Key: 1")
	w.deny(policy.ConditionNotMet, "GET https://named.example/", "Api_Key: 1", "Api-Key: 2")
	w.allow("GET https://elsewhere.example/", "X_Role: admin")
}
