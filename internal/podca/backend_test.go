package podca_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// teams is two policies: of support's pods, and of somebody else.
func teams(t *testing.T, support, other string) *policy.Set {
	t.Helper()
	text := ""
	for name, hosts := range map[string]string{"support": support, "other": other} {
		text += "---\napiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: " + name + "}\nspec:\n  agents: {namespaces: [" + name + "]}\n  allowlist: [" + quoted(hosts) + "]\n"
	}
	docs, err := v1alpha1.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := policy.Compile(docs, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestAPodGetsTheDocumentsThatSelectItAndNoOthers(t *testing.T) {
	w := newWorld(t)
	policies := &podca.Policies{}
	policies.Swap(teams(t, "a.example", "secret.example"))
	p, _, err := policies.For(w.pod)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(p.YAML, []byte("a.example")) || bytes.Contains(p.YAML, []byte("secret")) {
		t.Errorf("%s", p.YAML)
	}
	docs, err := v1alpha1.Parse("control", p.YAML)
	if err != nil {
		t.Fatal(err)
	}
	engine, _, err := policy.Compile(docs, policy.Options{})
	if err != nil || engine.Revision() != p.Revision {
		t.Errorf("the engine's revision is %s, control's %s: %v", engine.Revision(), p.Revision, err)
	}
	if p.Template.None() || p.Template.Unconstrained {
		t.Errorf("%+v", p.Template)
	}
}

func TestAnotherTeamsChangeIsNoNews(t *testing.T) {
	w := newWorld(t)
	policies := &podca.Policies{}
	policies.Swap(teams(t, "a.example", "b.example"))
	before, changed, err := policies.For(w.pod)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
		t.Error("changed before it was")
	default:
	}
	policies.Swap(teams(t, "a.example", "c.example"))
	<-changed
	after, _, err := policies.For(w.pod)
	if err != nil || after.Revision != before.Revision || !bytes.Equal(after.YAML, before.YAML) || !same(after.Template, before.Template) {
		t.Errorf("%s, then %s: %v", before.Revision, after.Revision, err)
	}
	policies.Swap(teams(t, "a.example,d.example", "c.example"))
	if gained, _, err := policies.For(w.pod); err != nil || gained.Revision == before.Revision || same(gained.Template, before.Template) {
		t.Errorf("a host more is no news: %v", err)
	}
}

func TestAPodWithoutAPolicyIsToldSo(t *testing.T) {
	policies := &podca.Policies{}
	stranger := link.Pod{Namespace: "nowhere", ServiceAccount: "x", UID: "u"}
	_, _, err := policies.For(stranger)
	var r *link.Refusal
	if !errors.As(err, &r) || r.Kind != link.Unavailable || r.Reason != "no_policy" {
		t.Errorf("before a policy is there: %v", err)
	}
	for _, set := range []*policy.Set{teams(t, "a.example", "b.example"), compileNothing(t)} {
		policies.Swap(set)
		p, _, err := policies.For(stranger)
		if err != nil || len(p.YAML) > 0 || p.Revision == "" || !p.Template.None() || len(p.Template.RawSubject) > 0 {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

func compileNothing(t *testing.T) *policy.Set {
	t.Helper()
	set, _, err := policy.Compile(nil, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTheBackendSignsForThePolicyInForce(t *testing.T) {
	w := newWorld(t)
	policies := &podca.Policies{}
	backend, err := podca.NewBackend(w.signer, policies)
	if err != nil {
		t.Fatal(err)
	}
	var _ link.Backend = backend
	pod, err := backend.Authenticate(t.Context(), "good")
	if err != nil || pod != w.pod {
		t.Fatalf("%+v, %v", pod, err)
	}
	if _, err := backend.Sign(t.Context(), pod, nil, ""); err == nil {
		t.Error("signed before there was a policy")
	}
	policies.Swap(teams(t, "a.example", "b.example"))
	p, _, err := backend.Policy(pod)
	if err != nil {
		t.Fatal(err)
	}
	csr := newCSR(t, newKey(t, elliptic.P256()), p.Template)
	if _, err := backend.Sign(t.Context(), pod, csr, p.Revision); err != nil {
		t.Error(err)
	}
	<-w.events.Events
	policies.Swap(teams(t, "c.example", "b.example"))
	_, err = backend.Sign(t.Context(), pod, csr, p.Revision)
	w.refusedSign(err, link.Invalid, "not_the_template")
	policies.Swap(teams(t, "*", "b.example"))
	if p, _, err = backend.Policy(pod); err != nil || !p.Template.Unconstrained {
		t.Fatalf("%+v, %v", p.Template, err)
	}
	if _, err := backend.Sign(t.Context(), pod, newCSR(t, newKey(t, elliptic.P256()), p.Template), p.Revision); err != nil || !strings.Contains(w.log.String(), "a rule allows every host") {
		t.Errorf("%v, %s", err, w.log)
	}
	if _, err := podca.NewBackend(nil, policies); err == nil {
		t.Error("a backend without a signer")
	}
	if _, err := podca.NewBackend(w.signer, nil); err == nil {
		t.Error("a backend without policies")
	}
}

func TestARecorderWithoutAPlaceToRecordIsNotMade(t *testing.T) {
	if _, err := podca.NewRecorder("aegrail-system", nil, nil, nil); err == nil {
		t.Error("made")
	}
}
