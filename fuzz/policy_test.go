package fuzz

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/http1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// policySeeds are files that load, and some that must not.
func policySeeds() []string {
	const head = "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: a}\n"
	return []string{
		head + "spec: {rules: []}\n",
		head + `spec:
  agents: {namespaces: [support], serviceAccounts: [bot]}
  mode: observe
  allowlist: [pypi.pkg.example, "*.files.example", 10.0.0.0/8]
  rules:
    - name: chat
      hosts: [api.example.com, "a.*.example"]
      ports: [443, 8443]
      scheme: any
      methods: [POST]
      paths: [/v1/chat, "/v1/*/runs", "/x/**", /café]
      path: {encodedSlash: allow, semicolon: allow, doubleSlash: deny}
      when: 'request.body.json.model in ["m"]'
      limits: {rate: 30/min, requestBytes: 1Mi, maxRequests: 7}
      headers: {set: {X-A: "no"}, remove: [Cookie]}
      recordPath: hash
    - {name: "yes", action: deny, hosts: ["*"], methods: [DELETE]}
    - {hosts: [pin.test], tls: passthrough}
`,
		head + "spec: &a {allowlist: [*a]}\n",
		head + "spec: {rules: [{hosts: [no], methods: [NO]}]}\n",
		head + "---\n" + head, "", "- a", "\xff\xfe", "a: *b", "? [a]\n: b\n",
	}
}

// FuzzPolicyFile: what loads is written and read as the same policies, compiles
// or says why, and what compiles has one revision and denies nobody's request.
func FuzzPolicyFile(f *testing.F) {
	for _, seed := range policySeeds() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := v1alpha1.Parse("p.yaml", data)
		if err != nil {
			if docs != nil {
				t.Fatal("policies and an error")
			}
			return
		}
		canonical, err := v1alpha1.Canonical(docs)
		if err != nil {
			t.Fatal(err)
		}
		written, err := v1alpha1.Marshal(docs)
		if err != nil {
			t.Fatal(err)
		}
		again, err := v1alpha1.Parse("q.yaml", written)
		if err != nil {
			t.Fatalf("%v\nwas %q\nis  %q", err, data, written)
		}
		if same, err := v1alpha1.Canonical(again); err != nil || !bytes.Equal(canonical, same) {
			t.Fatalf("%v\n%s\n%s", err, canonical, same)
		}
		one, _, err1 := policy.Compile(docs, policy.Options{AnyAgent: true})
		two, _, err2 := policy.Compile(again, policy.Options{AnyAgent: true})
		if (err1 == nil) != (err2 == nil) || one.Revision() != two.Revision() {
			t.Fatalf("%v %v, %s %s", err1, err2, one.Revision(), two.Revision())
		}
		if d := one.For(identity.Principal{}).Decide(&canon.Request{}); d.Verdict != policy.Deny {
			t.Fatalf("the zero request: %+v", d)
		}
	})
}

// FuzzJSONBody: what a condition may read, encoding/json reads as the same
// value, and the decision on it does not change when it is written anew.
func FuzzJSONBody(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","n":1.5}`, `{"model":"m","model":"x"}`, `{"model":"m","Model":"x"}`, `[1,-0,1e10,true,null,"\ud83d\ude00"]`,
		`"\ud800"`, `1e999`, `9007199254740993`, "\ufeff{}", `{"a":{"k":1,"` + "\u212a" + `":2}}`, strings.Repeat("[", 65) + strings.Repeat("]", 65), `{"a":1}x`, `0e-999`, `1e-999`, `20000000000000010.0`, "\"\xff\"", ``,
	} {
		f.Add([]byte(seed))
	}
	view := bodyView(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := policy.StrictJSON(text)
		req := bodyRequest(len(text))
		decision := view.DecideBody(req, text)
		if err != nil {
			if len(text) > 0 && decision.Verdict != policy.Deny {
				t.Fatalf("%q is no JSON (%v) and is allowed", text, err)
			}
			return
		}
		var want any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is read as %#v, encoding/json reads %#v", text, got, want)
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := policy.StrictJSON(written); err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%q written as %q: %v, %#v", text, written, err, again)
		}
		anew := view.DecideBody(bodyRequest(len(written)), written)
		if decision.Verdict != anew.Verdict || decision.Reason != anew.Reason {
			t.Fatalf("%q is %v (%s), written as %q it is %v (%s)", text, decision.Verdict, decision.Reason, written, anew.Verdict, anew.Reason)
		}
	})
}

// bodyView is the view of a policy whose one rule reads the body.
func bodyView(tb testing.TB) *policy.View {
	tb.Helper()
	set, _, err := policy.Compile([]v1alpha1.AgentPolicy{{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "fuzz"},
		Spec: v1alpha1.Spec{Rules: []v1alpha1.Rule{{Hosts: []string{"x.example"}, When: `request.body.json.model == "m" || request.body.json > 1.0`, Limits: v1alpha1.Limits{RequestBytes: 1 << 30}}}},
	}}, policy.Options{AnyAgent: true})
	if err != nil {
		tb.Fatal(err)
	}
	return set.For(identity.Principal{})
}

func bodyRequest(size int) *canon.Request {
	req := &canon.Request{Scheme: canon.HTTPS, Authority: canon.Authority{Host: "x.example", Port: 443}, Method: "POST", Path: []byte("/"), Framing: http1.Length, Length: int64(size)}
	req.SetField("Content-Type", "application/json")
	return req
}
