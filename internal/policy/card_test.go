package policy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/canon"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest/race"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
)

// dice draws policies and requests from so few words that they meet.
type dice struct{ *rand.Rand }

func (d dice) of(words ...string) string { return words[d.IntN(len(words))] }

// some returns a few of words, perhaps none.
func (d dice) some(words ...string) []string {
	var out []string
	for _, w := range words {
		if d.IntN(len(words)) == 0 {
			out = append(out, w)
		}
	}
	return out
}

func (d dice) rule(i int) string {
	var b strings.Builder
	host := d.of("a.example", "b.example", "a.example", "b.example", "c.example", "*.example", "*", "c.b.example")
	fmt.Fprintf(&b, "    - name: r%d\n      hosts: [\"%s\"]\n", i, host)
	list := func(key string, values []string) {
		if len(values) > 0 {
			fmt.Fprintf(&b, "      %s: [%s]\n", key, strings.Join(values, ", "))
		}
	}
	list("methods", d.some("GET", "POST", "PURGE"))
	list("paths", d.some(`"/v1"`, `"/v1/*"`, `"/v1/**"`, `"/v2/x"`, `"/v1/%41"`, `"/"`))
	list("ports", d.some("443", "8443", "8080"))
	if d.IntN(4) == 0 {
		b.WriteString("      action: deny\n")
		return b.String()
	}
	for _, line := range []string{
		"recordPath: hash", "limits: {rate: 5/min}", "limits: {requestBytes: 10}", "headers: {remove: [X-Team]}",
		"websocket: true", "addresses: [10.0.0.0/8]", "path: {semicolon: allow}", "scheme: any",
	} {
		if d.IntN(12) == 0 && !strings.Contains(b.String(), line[:6]) {
			fmt.Fprintf(&b, "      %s\n", line)
		}
	}
	return b.String()
}

func (d dice) request() *canon.Request {
	r := &canon.Request{
		Scheme: canon.HTTPS, Method: d.of("GET", "POST", "PURGE", "DELETE"), Path: []byte(d.of("/v1", "/v1/x", "/v1/A", "/v1/%41", "/v2/x", "/")),
		Authority: canon.Authority{Host: d.of("a.example", "b.example", "c.example", "c.b.example", "d.other"), Port: 443}, Length: int64(d.IntN(20)),
	}
	switch d.IntN(12) {
	case 0:
		r.Scheme, r.Port = canon.HTTP, 80
	case 1:
		r.Port = 8443
	case 2:
		r.Upgrade = canon.WebSocket
	case 3:
		r.Quirks = canon.MethodOverride
	}
	return r
}

func TestACardSaysWhatTheWholeDecisionWould(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(1, 2))}
	carded, shared := 0, map[*outcome]int{}
	for i := 0; i < 3000; i += race.Step(10) {
		text := "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: drawn}\nspec:\n  allowlist: [" +
			strings.Join(d.some("a.example", "d.other"), ", ") + "]\n  rules:\n"
		for i := range 1 + d.IntN(5) {
			text += d.rule(i)
		}
		docs, err := v1alpha1.Parse("drawn.yaml", []byte(text))
		if err != nil {
			continue // what does not go together
		}
		set, _, err := Compile(docs, Options{AnyAgent: true})
		if err != nil {
			continue
		}
		v := set.For(identity.Principal{})
		for range 40 {
			req := d.request()
			m := match{view: v, req: req, bodyIn: true}
			want, got := m.decide(), v.Decide(req)
			if c := v.index.names.card(req.Host); got.out != nil && c != nil && got.out == c.grant {
				carded++
				shared[c.grant]++
			}
			if got.out != nil && want.out != nil && !reflect.DeepEqual(got.out.edits, want.out.edits) {
				t.Fatalf("edits %v, want %v", got.out.edits, want.out.edits)
			}
			got.out, want.out = nil, nil
			got.view, want.view = nil, nil // a card's has no say in trailers: no condition does
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s https://%s:%d%s\n%+v, want\n%+v, by\n%s", req.Method, req.Host, req.Port, req.Path, got, want, text)
			}
		}
	}
	if carded < 10_000/race.Step(10) || len(shared) < 100/race.Step(10) {
		t.Errorf("only %d decisions of %d grants were made by cards", carded, len(shared))
	}
}

func TestWhatDoesNotFitACardHasNone(t *testing.T) {
	long := strings.Repeat("x", cardText)
	for _, in := range []v1alpha1.Rule{
		{Name: "long", Hosts: []string{"a.example"}, Paths: []string{"/" + long}},
		{Name: "star", Hosts: []string{"a.example"}, Paths: []string{"/*"}},
		{Name: "limit", Hosts: []string{"a.example"}, Paths: []string{"/*"}, Limits: v1alpha1.Limits{RequestBytes: 1}},
	} {
		doc := v1alpha1.AgentPolicy{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.Kind, Metadata: v1alpha1.Metadata{Name: "p"}, Spec: v1alpha1.Spec{Rules: []v1alpha1.Rule{in}}}
		set, _, err := Compile([]v1alpha1.AgentPolicy{doc}, Options{AnyAgent: true})
		if err != nil {
			t.Fatal(err)
		}
		v := set.For(identity.Principal{})
		req := &canon.Request{Scheme: canon.HTTPS, Method: "GET", Path: []byte(in.Paths[0]), Authority: canon.Authority{Host: "a.example", Port: 443}}
		if c := v.index.names.card("a.example"); c != nil && c.methods != 0 {
			t.Errorf("%.20s has a card", in.Name)
		}
		if got := v.Decide(req); got.Verdict != Allow || got.Rule != in.Name {
			t.Errorf("%.20s: %+v", in.Name, got)
		}
	}
}
