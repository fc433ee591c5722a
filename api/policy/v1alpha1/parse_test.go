package v1alpha1_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
)

const head = "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: a}\n"

// everything uses every field.
const everything = head + `spec:
  agents: {namespaces: [support], serviceAccounts: [support-bot]}
  mode: observe
  allowlist: [pypi.pkg.example, "*.files.example", 10.0.0.0/8]
  rules:
    - name: first
      action: allow
      hosts: [api.example.com, "a.*.example", "*"]
      ports: [443, 8443]
      scheme: any
      methods: [GET, POST, M-SEARCH]
      paths: [/, /v1/*, "/v1/**", /a//b, "/a;v=1", /s%2Ft, /café]
      path: {encodedSlash: allow, semicolon: allow, doubleSlash: allow}
      when: 'request.method == "GET"'
      limits: {rate: 30/min, requestBytes: 1Mi, maxRequests: 10}
      tls: inspect
      websocket: true
      noSNI: allow
      methodOverride: allow
      addresses: [10.1.0.0/16, "fd00::/8"]
      upstream: {rootsFile: roots.pem, spkiPins: [sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]}
      headers: {set: {Authorization: Bearer x, X-A: "1"}, remove: [Cookie]}
      recordPath: pattern
    - action: deny
      hosts: ["*"]
      methods: [DELETE]
    - {hosts: [pinned.example], tls: passthrough}
`

func TestEveryFieldIsRead(t *testing.T) {
	docs, err := v1alpha1.Parse("p.yaml", []byte(everything+"---\n"+strings.ReplaceAll(everything, "{name: a}", "{name: b}")+"---\n# nothing\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 2 || docs[1].Metadata.Name != "b" {
		t.Fatalf("%d documents", len(docs))
	}
	r := docs[0].Spec.Rules[0]
	want := v1alpha1.Rule{
		Name: "first", Action: v1alpha1.Allow, Hosts: []string{"api.example.com", "a.*.example", "*"}, Ports: []uint16{443, 8443},
		Scheme: v1alpha1.AnyScheme, Methods: []string{"GET", "POST", "M-SEARCH"},
		Paths: []string{"/", "/v1/*", "/v1/**", "/a//b", "/a;v=1", "/s%2Ft", "/café"},
		Path:  v1alpha1.PathOptIns{EncodedSlash: "allow", Semicolon: "allow", DoubleSlash: "allow"}, When: `request.method == "GET"`,
		Limits: v1alpha1.Limits{Rate: v1alpha1.Rate{Count: 30, Per: time.Minute}, RequestBytes: 1 << 20, MaxRequests: 10},
		TLS:    v1alpha1.Inspect, WebSocket: true, NoSNI: "allow", MethodOverride: "allow", Addresses: []string{"10.1.0.0/16", "fd00::/8"},
		Upstream:   v1alpha1.Upstream{RootsFile: "roots.pem", SPKIPins: []string{"sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},
		Headers:    v1alpha1.Headers{Set: map[string]string{"Authorization": "Bearer x", "X-A": "1"}, Remove: []string{"Cookie"}},
		RecordPath: v1alpha1.RecordPattern,
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got\n%+v\nwant\n%+v", r, want)
	}
	if got := docs[0].RuleName(1); got != "rule-2" {
		t.Errorf("a rule without a name is %q", got)
	}
	if pos := docs[1].Source.Pos("spec.rules[0].hosts[1]"); pos.Line < 30 || pos.Column == 0 {
		t.Errorf("%+v", pos)
	}
	if pos := docs[0].Source.Pos("spec.rules[0].nothing.here"); pos.Line != 9 {
		t.Errorf("a field that is not there is at its rule: %+v", pos)
	}
}

func TestWhatIsWrittenIsReadAsTheSame(t *testing.T) {
	docs, err := v1alpha1.Parse("p.yaml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	out, err := v1alpha1.Marshal(docs)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v1alpha1.Parse("q.yaml", out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a, err1 := v1alpha1.Canonical(docs)
	b, err2 := v1alpha1.Canonical(again)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("%v %v\n%s\n%s", err1, err2, a, b)
	}
}

// spec wraps a spec's lines, which begin on line 5.
func spec(lines string) string { return head + "spec:\n" + lines }

// rule wraps a rule's fields in flow style: line 6, column 8 on.
func rule(fields string) string { return spec("  rules:\n    - {" + fields + "}\n") }

// fault is a file that does not load, and what the error must hold.
type fault struct{ name, file, want string }

func checkFaults(t *testing.T, faults []fault) {
	t.Helper()
	for _, row := range faults {
		t.Run(row.name, func(t *testing.T) {
			docs, err := v1alpha1.Parse("p.yaml", []byte(row.file))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("\n got %v\nwant %s", err, row.want)
			}
			if docs != nil {
				t.Error("policies and an error")
			}
			var at *v1alpha1.Error
			if !errors.As(err, &at) || at.File != "p.yaml" || at.Line == 0 || at.Column == 0 {
				t.Errorf("the error has no place: %+v", at)
			}
		})
	}
}

func TestErrorsOfForm(t *testing.T) {
	checkFaults(t, []fault{
		{"an unknown key", rule(`metods: [GET], hosts: [a]`), `p.yaml:6:8: spec.rules[0]: has the unknown key "metods"; expected one of name, action, hosts, ports, scheme, methods, paths, path, when, limits, tls, websocket, noSNI, methodOverride, addresses, upstream, headers, recordPath; did you mean "methods"?`},
		{"a key in the singular", rule(`host: [a]`), `did you mean "hosts"?`},
		{"a key in another case", rule(`hosts: [a], nosni: allow`), `did you mean "noSNI"?`},
		{"a key like no other", rule(`hosts: [a], zzzzzzzz: allow`), `has the unknown key "zzzzzzzz"; expected one of name`},
		{"a key twice", rule(`hosts: [a], hosts: [b]`), `p.yaml:6:20: spec.rules[0].hosts: is given twice, first on line 6; remove one`},
		{"a merge key", spec("  agents: &a {namespaces: [x]}\n  rules:\n    - {<<: *a, hosts: [a]}\n"), `p.yaml:7:8: spec.rules[0]: has a merge key "<<"; write the keys out`},
		{"a list as a key", rule(`hosts: [a], [x]: y`), `spec.rules[0]: has a key that is a list`},
		{"no as a method", rule(`hosts: [a], methods: [no]`), `p.yaml:6:30: spec.rules[0].methods[0]: is the plain word no, which some readers take for true or false; expected a method such as GET; put it in quotes if it is meant: "no"`},
		{"true as a host", rule(`hosts: [true]`), `is the boolean true; expected a host; put it in quotes if it is meant: "true"`},
		{"a number as a name", spec("  rules:\n    - {name: 1.10, hosts: [a]}"), `p.yaml:6:14: spec.rules[0].name: is the number 1.10; expected a name; put it in quotes if it is meant: "1.10"`},
		{"a date as a name", rule(`name: 2026-01-01, hosts: [a]`), `is the date 2026-01-01`},
		{"a tagged name", rule(`name: !secret x, hosts: [a]`), `is tagged !secret x`},
		{"nothing as methods", rule(`hosts: [a], methods: `), `p.yaml:6:29: spec.rules[0].methods: has no value; expected a list; give it one or remove the key`},
		{"no methods", rule(`hosts: [a], methods: []`), `is an empty list, which would match nothing; expected at least one entry; give it one or remove the key`},
		{"a method alone", rule(`hosts: [a], methods: GET`), `spec.rules[0].methods: is the text GET; expected a list; write it as [GET]`},
		{"paths in path", rule(`hosts: [a], path: [/x]`), `spec.rules[0].path: is a list; expected a mapping of encodedSlash, semicolon, doubleSlash`},
		{"a mapping as a host", rule(`hosts: [{a: b}]`), `spec.rules[0].hosts[0]: is a mapping; expected a host`},
		{"a mapping as methods", rule(`hosts: [a], methods: {a: b}`), `spec.rules[0].methods: is a mapping; expected a list`},
		{"an empty host", rule(`hosts: [""]`), `spec.rules[0].hosts[0]: is empty; expected a host`},
		{"an action with a typing error", rule(`hosts: [a], action: dney`), `spec.rules[0].action: is "dney"; expected one of allow, deny, hold; did you mean "deny"?`},
		{"a scheme that is none", rule(`hosts: [a], scheme: wss`), `spec.rules[0].scheme: is "wss"; expected one of https, http, any`},
		{"hold", rule(`hosts: [a], action: hold`), `p.yaml:6:28: spec.rules[0].action: is "hold"; expected allow or deny; approvals are not built yet`},
		{"a boolean opt-in", rule(`hosts: [a], noSNI: true`), `spec.rules[0].noSNI: is the boolean true; expected one of allow, deny`},
		{"yes as a boolean", rule(`hosts: [a], websocket: yes`), `spec.rules[0].websocket: is the plain word yes, which some readers take for true or false; expected true or false`},
		{"a port beyond", rule(`hosts: [a], ports: [65536]`), `spec.rules[0].ports[0]: is the number 65536; expected a whole number from 1 to 65535`},
		{"an octal port", rule(`hosts: [a], ports: [0700]`), `expected a whole number from 1 to 65535`},
		{"a port in quotes", rule(`hosts: [a], ports: ["443"]`), `spec.rules[0].ports[0]: is the text 443; expected a whole number from 1 to 65535; write it without quotes`},
		{"a port in words", rule(`hosts: [a], ports: [https]`), `spec.rules[0].ports[0]: is the text https`},
		{"a hexadecimal port", rule(`hosts: [a], ports: [0x1bb]`), `is the number 0x1bb`},
		{"a rate without a unit", rule(`hosts: [a], limits: {rate: 30}`), `spec.rules[0].limits.rate: is the number 30; expected a rate such as 30/min`},
		{"a rate with an odd unit", rule(`hosts: [a], limits: {rate: 30/m}`), `"30/m" is no rate: the unit is s, min, h or day, as in 30/min`},
		{"a rate of nothing", rule(`hosts: [a], limits: {rate: 0/s}`), `"0/s" is no rate: write a count from 1 to 1000000`},
		{"a size in words", rule(`hosts: [a], limits: {requestBytes: 1MB}`), `"1MB" is no size`},
		{"a size in a list", rule(`hosts: [a], limits: {requestBytes: [1]}`), `spec.rules[0].limits.requestBytes: is a list; expected a size such as 1Mi`},
		{"a size with two units", rule(`hosts: [a], limits: {requestBytes: 1MiG}`), `"1MiG" is no size: the unit is Ki`},
		{"a size that is too large", rule(`hosts: [a], limits: {requestBytes: 9999Gi}`), `"9999Gi" is too large: the limit is 1024Gi`},
	})
}

func TestErrorsOfHostsMethodsAndPaths(t *testing.T) {
	checkFaults(t, []fault{
		{"no hosts", rule(`methods: [GET]`), `p.yaml:6:7: spec.rules[0].hosts: is missing; expected a list of hosts, or ["*"] for every host`},
		{"an address", rule(`hosts: [192.0.2.1]`), `spec.rules[0].hosts[0]: "192.0.2.1" is an IP address; expected a host such as api.example.com, *.example.com, "*" or 10.1.0.0/16; write it as the CIDR 192.0.2.1/32`},
		{"an address in brackets", rule(`hosts: ["[2001:db8::1]"]`), `write it as the CIDR 2001:db8::1/128`},
		{"a CIDR with host bits", rule(`hosts: [10.1.2.3/8]`), `"10.1.2.3/8" has bits set beyond its length; expected a CIDR such as 10.1.0.0/16; write it as 10.0.0.0/8`},
		{"a CIDR that is none", rule(`hosts: [10.1/16]`), `is "10.1/16"; expected a CIDR such as 10.1.0.0/16`},
		{"a URL", rule(`hosts: ["https://api.example.com/v1"]`), `is a URL; expected a host such as api.example.com, *.example.com, "*" or 10.1.0.0/16; write the host alone: api.example.com`},
		{"a host with a path", rule(`hosts: [api.example.com/v1]`), `has a path; expected a host such as api.example.com, *.example.com, "*" or 10.1.0.0/16; write the host alone, here api.example.com, and the path in paths`},
		{"a host with a port", rule(`hosts: ["api.example.com:8443"]`), `write the host alone, here api.example.com, and ports: [8443]`},
		{"a leading dot", rule(`hosts: [.example.com]`), `".example.com" has an empty label; expected a host such as api.example.com, *.example.com, "*" or 10.1.0.0/16; for every name below it write *.example.com`},
		{"two dots", rule(`hosts: [a..b]`), `has an empty label`},
		{"a star at the end", rule(`hosts: ["example.*"]`), `ends with a *, which would let anybody register a matching name`},
		{"a star in a label", rule(`hosts: ["api-*.example.com"]`), `has a * inside a label; expected a host such as api.example.com, *.example.com, "*" or 10.1.0.0/16; a * is a whole label: list the names, or allow *.example.com`},
		{"two stars", rule(`hosts: ["**.example.com"]`), `has a **; `},
		{"a space in a host", rule(`hosts: ["a b"]`), `"a b" is no host name`},
		{"an unquoted star", rule(`hosts: [*.example.com]`), `p.yaml:6:16: is not YAML: did not find expected alphabetic or numeric character; put what begins with * in quotes, as in "*.example.com"`},
		{"a tab", spec("\trules: []"), `indent with spaces, not tabs`},
		{"a tab below", rule("hosts: [a]") + "\n    - name: b\n\thosts: [c]\n      methods: [GET]\n", `p.yaml:9:2: is not YAML: found a tab character that violates indentation; indent with spaces, not tabs`},
		{"a space too few", spec("  rules:\n    - name: a\n     hosts: [b]\n      methods: [GET]\n"), `p.yaml:7:6: is not YAML: did not find expected '-' indicator; indent it as far as the lines that it belongs with`},
		{"a space too many", spec("  rules:\n    - name: a\n       hosts: [b]\n"), `p.yaml:7:8: is not YAML: mapping values are not allowed in this context; indent it as far`},
		{"a list that is not closed", spec("  rules:\n    - hosts: [a, b\n      methods: [GET]\n"), `p.yaml:6:`},
		{"a method in lower case", rule(`hosts: [a], methods: [get]`), `spec.rules[0].methods[0]: is "get"; expected a method in upper case, such as GET; write it as "GET"`},
		{"every method", rule(`hosts: [a], methods: ["*"]`), `is "*"; expected a method in upper case, such as GET; remove methods to match all of them`},
		{"CONNECT", rule(`hosts: [a], methods: [CONNECT]`), `is judged by host`},
		{"a path without a slash", rule(`hosts: [a], paths: [v1]`), `"v1" does not begin with /; expected a path such as /v1/messages, "/v1/*" or "/v1/**"; write it as "/v1"`},
		{"a query in a path", rule(`hosts: [a], paths: ["/a?b=c"]`), `has a query or fragment`},
		{"a dot segment", rule(`hosts: [a], paths: [/a/../b]`), `has a dot segment, which is always refused`},
		{"an encoded dot segment", rule(`hosts: [a], paths: [/a/%2e%2E/b]`), `has a dot segment`},
		{"** in the middle", rule(`hosts: [a], paths: ["/**/b"]`), `has ** before its end`},
		{"a star in a segment", rule(`hosts: [a], paths: ["/a/*.json"]`), `has a * inside a segment; expected a path such as /v1/messages, "/v1/*" or "/v1/**"; a * is a whole segment; a star in the path itself is %2A`},
		{"an empty segment", rule(`hosts: [a], paths: [/a//b]`), `remove the double slash or add path: {doubleSlash: allow}`},
		{"a semicolon", rule(`hosts: [a], paths: [/a;b]`), `add path: {semicolon: allow}`},
		{"an encoded slash", rule(`hosts: [a], paths: [/a%2fb]`), `add path: {encodedSlash: allow}`},
		{"a broken triplet", rule(`hosts: [a], paths: [/a%zz]`), `has a broken percent-encoding`},
		{"half a triplet", rule(`hosts: [a], paths: [/a%2]`), `has a broken percent-encoding`},
		{"an encoded control", rule(`hosts: [a], paths: [/a%00]`), `has an encoded character that is always refused`},
		{"invalid UTF-8 in a path", rule(`hosts: [a], paths: [/a%ff]`), `is not UTF-8 once decoded`},
		{"a backslash", rule(`hosts: [a], paths: ["/a\\b"]`), `has characters that no path has`},
	})
}

func TestErrorsOfFieldsTogether(t *testing.T) {
	checkFaults(t, []fault{
		{"an address to dial without a length", rule(`hosts: [a], addresses: ["::ffff:10.0.0.1"]`), `spec.rules[0].addresses[0]: is "::ffff:10.0.0.1"; expected a CIDR such as 10.1.0.0/16; write it as 10.0.0.1/32`},
		{"a pin that is none", rule(`hosts: [a], upstream: {spkiPins: [md5/x]}`), `"md5/x" is no pin: write sha256/ and the base64`},
		{"a framing header", rule(`hosts: [a], headers: {set: {Content-Length: "3"}}`), `p.yaml:6:52: spec.rules[0].headers.set.Content-Length: "Content-Length" cannot be edited: it frames the message; remove it`},
		{"a body header", rule(`hosts: [a], headers: {remove: [content_encoding]}`), `"content_encoding" cannot be edited: it says how the body is read`},
		{"Host", rule(`hosts: [a], headers: {set: {HOST: b}}`), `"HOST" cannot be edited: it is the name that was judged`},
		{"a hop-by-hop header", rule(`hosts: [a], headers: {remove: [Connection]}`), `it is hop-by-hop and never forwarded`},
		{"a method override", rule(`hosts: [a], headers: {set: {X-HTTP-Method-Override: PUT}}`), `servers read another method, path or host from it than the one judged`},
		{"a handshake header", rule(`hosts: [a], headers: {remove: [Sec-WebSocket-Key]}`), `it belongs to the WebSocket handshake`},
		{"a header that is none", rule(`hosts: [a], headers: {remove: ["a b"]}`), `"a b" is no header name`},
		{"a header twice", rule(`hosts: [a], headers: {set: {X-A: b}, remove: [x-a]}`), `"x-a" is edited twice (names have no case)`},
		{"a header value on two lines", rule(`hosts: [a], headers: {set: {X-A: "b\r\nc: d"}}`), `has control characters`},
		{"a header given twice", rule(`hosts: [a], headers: {set: {X-A: b, X-A: c}}`), `spec.rules[0].headers.set.X-A: is given twice`},
		{"headers as a list", rule(`hosts: [a], headers: {set: [a]}`), `spec.rules[0].headers.set: is a list; expected a mapping of names to values`},
		{"deny with limits", rule(`hosts: [a], action: deny, limits: {rate: 1/s}, headers: {remove: [X]}`), `spec.rules[0].headers: has no effect on a deny rule; remove it`},
		{"deny with an opt-in", rule(`hosts: [a], action: deny, methodOverride: allow`), `spec.rules[0].methodOverride: has no effect on a deny rule`},
		{"passthrough with methods", rule(`hosts: [a], tls: passthrough, methods: [GET]`), `spec.rules[0].methods: cannot be judged in a passthrough tunnel, which is chosen by host and port only; remove it, or let the engine inspect with tls: inspect`},
		{"passthrough of HTTP", rule(`hosts: [a], tls: passthrough, scheme: http, noSNI: allow`), `spec.rules[0].noSNI: cannot be judged`},
		{"WebSocket without GET", rule(`hosts: [a], websocket: true, methods: [POST]`), `leaves out GET, with which every WebSocket begins; add GET to methods`},
	})
}

func TestErrorsOfThePolicyAndTheFile(t *testing.T) {
	checkFaults(t, []fault{
		{"no apiVersion", "kind: AgentPolicy\nmetadata: {name: a}\nspec: {rules: []}\n", `p.yaml:1:1: apiVersion: is missing; expected aegrail.io/v1alpha1; write apiVersion: aegrail.io/v1alpha1`},
		{"rules beside spec", head + "rules: []\n", `p.yaml:4:1: has the unknown key "rules"; expected one of apiVersion, kind, metadata, spec; it belongs below spec, indented`},
		{"a rule named allowlist", rule(`hosts: [a], name: allowlist`), `that is how the log names spec.allowlist`},
		{"a name with a slash", rule(`hosts: [a], name: a/b`), `spec.rules[0].name: is "a/b"; expected a name of at most 100 letters`},
		{"two rules of a name", spec("  rules:\n    - {name: x, hosts: [a]}\n    - {name: x, hosts: [a]}"), `p.yaml:7:14: spec.rules[1].name: "x" is the name of an earlier rule (line 6)`},
		{"two policies of a name", head + "spec: {}\n---\n" + head + "spec: {}", `p.yaml:8:18: metadata.name: "a" is the name of another policy (p.yaml:3)`},
		{"no name", strings.Replace(head, "{name: a}", "{}", 1), `metadata.name: is ""; expected a name`},
		{"another version", strings.Replace(head, "v1alpha1", "v2", 1), `p.yaml:1:13: apiVersion: is "aegrail.io/v2"; expected aegrail.io/v1alpha1`},
		{"another kind", strings.Replace(head, "AgentPolicy", "Pod", 1), `p.yaml:2:7: kind: is "Pod"; expected AgentPolicy`},
		{"a namespace pattern", spec("  agents: {namespaces: [\"team-*\"]}"), `p.yaml:5:25: spec.agents.namespaces[0]: is "team-*"; expected a Kubernetes name: lower-case letters, digits, '-' and '.'; there are no patterns here: leave the key out to match all`},
		{"a service account with a slash", spec("  agents: {serviceAccounts: [a/b]}"), `spec.agents.serviceAccounts[0]: is "a/b"`},
		{"an allowlist of URLs", spec("  allowlist: [http://x]"), `spec.allowlist[0]: "http://x" is a URL`},
		{"a mode that is none", spec("  mode: audit"), `spec.mode: is "audit"; expected one of enforce, observe`},
		{"a list as a document", "- a\n", `p.yaml:1:1: is a list; expected a mapping of apiVersion, kind, metadata, spec`},
		{"nothing", "", `p.yaml:1:1: there is no policy in the file; expected a document with apiVersion: aegrail.io/v1alpha1; to deny everything, write one with "spec: {rules: []}"`},
		{"only comments", "# later\n---\n", `there is no policy in the file`},
		{"UTF-16", "\xff\xfea\x00", `the file is not UTF-8 text`},
		{"a file that is too large", strings.Repeat("#", v1alpha1.MaxFile+1), `the file has 33554433 bytes`},
		{"YAML that is not closed", "apiVersion: [", `p.yaml:1:1: is not YAML`},
		{"an unknown alias", "apiVersion: *nothing\n", `is not YAML: unknown anchor 'nothing' referenced`},
	})
}

func TestSeveralFaultsAreReportedAtOnceAndNotEndlessly(t *testing.T) {
	_, err := v1alpha1.Parse("p.yaml", []byte(rule(`hosts: [a], `+strings.Repeat("x: 1, ", 30)+`y: 1`)))
	var all v1alpha1.Errors
	if !errors.As(err, &all) || len(all) != 10 || strings.Count(err.Error(), "\n") != 9 {
		t.Errorf("%v", err)
	}
	_, err = v1alpha1.Parse("p.yaml", []byte(rule(`methods: [`+strings.Repeat("get, ", 30)+`get]`)))
	if !errors.As(err, &all) || len(all) != 10 {
		t.Errorf("%v", err)
	}
}

func TestSharedListsWorkAndBombsDoNot(t *testing.T) {
	shared := spec("  allowlist: &hosts [a.example, b.example]\n  rules:\n    - {hosts: *hosts, methods: [GET]}\n")
	docs, err := v1alpha1.Parse("p.yaml", []byte(shared))
	if err != nil || len(docs[0].Spec.Rules[0].Hosts) != 2 {
		t.Errorf("%v %+v", err, docs)
	}
	var bomb strings.Builder
	bomb.WriteString("  allowlist: &hosts [" + strings.Repeat("a.example, ", 2000) + "a.example]\n  rules:\n")
	for range 200 {
		bomb.WriteString("    - {hosts: *hosts}\n")
	}
	if _, err := v1alpha1.Parse("p.yaml", []byte(spec(bomb.String()))); err == nil || !strings.Contains(err.Error(), "too large once its aliases are followed") {
		t.Errorf("%v", err)
	}
	many := "  allowlist: [&h a.example" + strings.Repeat(", *h", 10_001) + "]\n"
	if _, err := v1alpha1.Parse("p.yaml", []byte(spec(many))); err == nil || !strings.Contains(err.Error(), "uses more than 10000 aliases") {
		t.Errorf("%v", err)
	}
	if _, err := v1alpha1.Parse("p.yaml", []byte("spec: &a {rules: [*a]}\n")); err == nil {
		t.Error("a document that holds itself was read")
	}
}

func TestWhatIsLeftOutMeans(t *testing.T) {
	for _, row := range []struct {
		rule v1alpha1.Rule
		want string
	}{
		{v1alpha1.Rule{}, "[{https 443}]"},
		{v1alpha1.Rule{Scheme: v1alpha1.HTTP}, "[{http 80}]"},
		{v1alpha1.Rule{Scheme: v1alpha1.AnyScheme}, "[{https 443} {http 80}]"},
		{v1alpha1.Rule{Scheme: v1alpha1.AnyScheme, Ports: []uint16{8080}}, "[{https 8080} {http 8080}]"},
		{v1alpha1.Rule{Action: v1alpha1.Deny}, "[{https 0} {http 0}]"},
		{v1alpha1.Rule{Action: v1alpha1.Deny, Scheme: v1alpha1.HTTPS}, "[{https 0}]"},
		{v1alpha1.Rule{Action: v1alpha1.Deny, Ports: []uint16{22}}, "[{https 22} {http 22}]"},
	} {
		if got := fmt.Sprint(row.rule.Endpoints()); got != row.want {
			t.Errorf("%+v: %s, want %s", row.rule, got, row.want)
		}
	}
}

func TestValidateRefusesWhatOnlyGoCanSay(t *testing.T) {
	ok := func(change func(*v1alpha1.AgentPolicy, *v1alpha1.Rule)) error {
		p := v1alpha1.AgentPolicy{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "go"}, Spec: v1alpha1.Spec{Rules: []v1alpha1.Rule{{Hosts: []string{"a.example"}}}}}
		change(&p, &p.Spec.Rules[0])
		return v1alpha1.Validate([]v1alpha1.AgentPolicy{p})
	}
	if err := ok(func(*v1alpha1.AgentPolicy, *v1alpha1.Rule) {}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*v1alpha1.AgentPolicy, *v1alpha1.Rule){
		"policy go: spec.mode":              func(p *v1alpha1.AgentPolicy, _ *v1alpha1.Rule) { p.Spec.Mode = "x" },
		"spec.rules[0].action":              func(_ *v1alpha1.AgentPolicy, r *v1alpha1.Rule) { r.Action = "x" },
		"spec.rules[0].ports":               func(_ *v1alpha1.AgentPolicy, r *v1alpha1.Rule) { r.Ports = []uint16{0} },
		"spec.rules[0].noSNI":               func(_ *v1alpha1.AgentPolicy, r *v1alpha1.Rule) { r.NoSNI = "x" },
		"spec.rules[0].limits.rate":         func(_ *v1alpha1.AgentPolicy, r *v1alpha1.Rule) { r.Limits.Rate.Count = 1 },
		"spec.rules[0].limits: has a negat": func(_ *v1alpha1.AgentPolicy, r *v1alpha1.Rule) { r.Limits.MaxRequests = -1 },
	} {
		if err := ok(change); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRatesAndSizesKeepTheirForm(t *testing.T) {
	for text, want := range map[string]string{"1/s": "1/s", "2/sec": "2/s", "3/second": "3/s", "30/min": "30/min", "30/minute": "30/min", "5/h": "5/h", "5/hour": "5/h", "7/d": "7/day", "7/day": "7/day"} {
		r, err := v1alpha1.ParseRate(text)
		if err != nil || r.String() != want || r.IsZero() {
			t.Errorf("%s: %v %v", text, r, err)
		}
	}
	for text, want := range map[string]string{"1": "1", "1024": "1Ki", "1Ki": "1Ki", "1000": "1k", "3M": "3M", "2Gi": "2Gi", "5G": "5G"} {
		b, err := v1alpha1.ParseBytes(text)
		if err != nil || b.String() != want {
			t.Errorf("%s: %v %v", text, b, err)
		}
	}
	if s := (v1alpha1.Rate{Count: 1, Per: time.Millisecond}).String() + v1alpha1.Bytes(0).String(); s != "1/1ms0" {
		t.Error(s)
	}
	for _, text := range []string{"", "/s", "+1/s", "01/s", "-1/s", "1/", "1/fortnight", "1000001/s", "1.5/s"} {
		if r, err := v1alpha1.ParseRate(text); err == nil {
			t.Errorf("%q is the rate %v", text, r)
		}
	}
	for _, text := range []string{"", "Mi", "0", "01", "+1", "-1", "1.5Mi", "1 Mi", "99999999999999999999"} {
		if b, err := v1alpha1.ParseBytes(text); err == nil {
			t.Errorf("%q is the size %v", text, b)
		}
	}
}

func TestCasesFile(t *testing.T) {
	cases, err := v1alpha1.ParseCases("c.yaml", []byte(`
- {name: chat is allowed, agent: support/bot, method: POST, url: "https://x.example/a", headers: {content-type: application/json}, body: "{}", want: allow, rule: chat}
- {url: "https://x.example/a/../%zz", want: deny, reason: ambiguous_path}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.Case{
		{Name: "chat is allowed", Agent: "support/bot", Method: "POST", URL: "https://x.example/a", Headers: map[string]string{"content-type": "application/json"}, Body: "{}", Want: "allow", Rule: "chat", File: "c.yaml", Line: 2},
		{Method: "GET", URL: "https://x.example/a/../%zz", Want: "deny", Reason: "ambiguous_path", File: "c.yaml", Line: 3},
	}
	if !reflect.DeepEqual(cases, want) {
		t.Errorf("%+v", cases)
	}
	for text, want := range map[string]string{
		"":                                 "there are no cases in the file",
		"[]":                               "is an empty list",
		"a: b":                             "c.yaml:1:1: is a mapping; expected a list",
		"- {url: https://x}":               "c.yaml:1:3: [0]: has no want; expected want: allow or want: deny",
		"- {want: deny}":                   "[0]: has no url",
		"- {want: deny, url: x.example}":   `[0].url: is "x.example"; expected a URL`,
		"- {want: deny, url: 'https:///'}": `[0].url: is "https:///"`,
		"- {want: maybe}":                  `[0].want: is "maybe"; expected one of allow, deny`,
		"- {wants: deny}":                  `[0]: has the unknown key "wants"; expected one of name`,
		"- [":                              "is not YAML",
	} {
		if _, err := v1alpha1.ParseCases("c.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestPinsOfEveryHash has a hash whose base64 begins with a slash, as one in 64
// does: it must not be taken for curl's second slash.
func TestPinsOfEveryHash(t *testing.T) {
	for first := range 256 {
		want := [32]byte{byte(first), 0xf0, 1, 2, 3}
		text := base64.StdEncoding.EncodeToString(want[:])
		for _, pin := range []string{"sha256/" + text, "sha256//" + text} {
			if got, err := v1alpha1.ParsePin(pin); err != nil || got != want {
				t.Errorf("%s: %x, %v", pin, got, err)
			}
		}
	}
	for _, pin := range []string{"", "sha256/", "sha256//", "sha256/AAAA", "sha1/" + strings.Repeat("A", 43) + "=", "sha256///" + strings.Repeat("A", 43) + "="} {
		if _, err := v1alpha1.ParsePin(pin); err == nil {
			t.Errorf("%q is taken for a pin", pin)
		}
	}
}

func TestAFaultNamesItsRuleWhereThatHasAName(t *testing.T) {
	const policy = "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: bot}\nspec:\n  rules:\n" +
		"    - {name: gate, hosts: [a.example], methods: [get]}\n" +
		"    - {hosts: [b.example], methods: [post]}\n"
	_, err := v1alpha1.Parse("policy.yaml", []byte(policy))
	var faults v1alpha1.Errors
	if !errors.As(err, &faults) || len(faults) != 2 {
		t.Fatalf("%v, want two faults", err)
	}
	if want := "(rule gate of policy bot)"; !strings.HasSuffix(faults[0].Error(), want) {
		t.Errorf("%s, want it to end with %s", faults[0], want)
	}
	if faults[1].Within != "" {
		t.Errorf("%s, and the rule has no name", faults[1])
	}
}
