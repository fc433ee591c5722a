package admission

import (
	"encoding/json"
	"testing"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
)

// compile makes a program of a condition as the API server does: objects have no schema.
func compile(t *testing.T, condition string) cel.Program {
	t.Helper()
	env, err := cel.NewEnv(cel.OptionalTypes(),
		cel.Variable("object", cel.DynType), cel.Variable("oldObject", cel.DynType), cel.Variable("request", cel.DynType))
	if err != nil {
		t.Fatal(err)
	}
	ast, issues := env.Compile(condition)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// matches evaluates a condition as the API server does: a field that is empty is not there.
func matches(t *testing.T, condition cel.Program, req *admissionv1.AdmissionRequest) bool {
	t.Helper()
	value := func(raw []byte) any {
		var v any
		if raw != nil {
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
		}
		return v
	}
	bare := req.DeepCopy()
	bare.Object.Raw, bare.OldObject.Raw = nil, nil
	raw, err := json.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := condition.Eval(map[string]any{"object": value(req.Object.Raw), "oldObject": value(req.OldObject.Raw), "request": value(raw)})
	if err != nil {
		t.Fatalf("an error refuses what this is about: %v", err)
	}
	is, ok := out.Value().(bool)
	if !ok {
		t.Fatalf("%v is no condition", out)
	}
	return is
}

func TestConditionsSendWhatTheyShould(t *testing.T) {
	h := newHook(t, nil)
	mutatePod, validateNamespace, validatePod := compile(t, MatchMutatePod), compile(t, MatchValidateNamespace), compile(t, MatchValidatePod)
	plain, injected := podOf(t, simple), h.injected("support", simple)
	edit := func(pod *corev1.Pod, do func(*corev1.Pod)) *corev1.Pod {
		out := pod.DeepCopy()
		do(out)
		return out
	}
	label := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = merged(p.Labels, map[string]string{key: value}) }
	}
	annotation := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = merged(p.Annotations, map[string]string{key: value}) }
	}
	image := func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other:1" }
	debug := func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "d"}}}
	}
	token := podOf(t, "{metadata: {name: t}, spec: {containers: [], volumes: [{name: w, emptyDir: {}}, {name: x, projected: {}}, {name: v, projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: u}}, {serviceAccountToken: {audience: aegrail-control, path: t}}]}}]}}")
	const create, update, ephemeral, resized = "CREATE pods", "UPDATE pods", "UPDATE pods/ephemeralcontainers", "UPDATE pods/resize"
	exec := func(container string) corev1.PodExecOptions { return corev1.PodExecOptions{Container: container} }
	for _, row := range []struct {
		what, operation                           string
		object, old                               any
		mutatePod, validateNamespace, validatePod bool
	}{
		{"a plain pod", create, plain, nil, false, true, false},
		{"a pod that asks", create, edit(plain, label("aegrail.io/inject", "true")), nil, true, true, true},
		{"a pod that asks by annotation", create, edit(plain, annotation("aegrail.io/inject", "true")), nil, true, true, true},
		{"a pod that asks in other words", create, edit(plain, label("aegrail.io/inject", "yes")), nil, true, true, true},
		{"a pod that does not", create, edit(plain, label("aegrail.io/inject", "false")), nil, false, true, false},
		{"another label", create, edit(plain, label("app", "bot")), nil, false, true, false},
		{"a mark", create, edit(plain, label("aegrail.io/injected", "")), nil, false, true, true},
		{"a user", create, edit(plain, annotation("aegrail.io/engine-uid", "5")), nil, false, true, true},
		{"a generation", create, edit(plain, annotation("aegrail.io/ca-generation", "1")), nil, false, true, true},
		{"a token for control", create, token, nil, false, true, true},

		{"an update of nothing", update, injected, injected, false, false, false},
		{"an update of a label", update, edit(injected, label("app", "bot")), injected, false, false, false},
		{"a finalizer's removal", update, injected, edit(injected, func(p *corev1.Pod) { p.Finalizers = []string{"batch.kubernetes.io/job-tracking"} }), false, false, false},
		{"the mark is removed", update, plain, injected, false, true, true},
		{"the mark is put on", update, injected, plain, false, true, true},
		{"the wish is added", update, edit(injected, annotation("aegrail.io/inject", "false")), injected, false, true, true},
		{"the user is changed", update, edit(injected, annotation("aegrail.io/engine-uid", "5")), injected, false, true, true},
		{"the generation is changed", update, edit(injected, annotation("aegrail.io/ca-generation", "5")), injected, false, true, true},
		{"an image is changed", update, edit(injected, image), injected, false, false, false},
		{"the engine is changed", update, edit(injected, func(p *corev1.Pod) { p.Spec.InitContainers[1].Image = "evil:1" }), injected, false, true, true},

		{"an ephemeral container", ephemeral, edit(injected, debug), injected, true, true, true},
		{"one that hides the mark", ephemeral, edit(plain, debug), injected, true, true, true},
		{"one of a plain pod", ephemeral, edit(plain, debug), plain, false, true, false},

		{"a resize", resized, injected, injected, false, true, true},
		{"one that hides the mark", resized, plain, injected, false, true, true},
		{"one of a plain pod", resized, plain, plain, false, false, false},

		{"exec into the agent", "CONNECT pods/exec", exec("agent"), nil, false, false, false},
		{"exec into the only one", "CONNECT pods/exec", exec(""), nil, false, false, false},
		{"exec into the engine", "CONNECT pods/exec", exec("aegrail-engine"), nil, false, true, true},
		{"attach to aegrail-init", "CONNECT pods/attach", exec("aegrail-init"), nil, false, true, true},
	} {
		q := question(t, row.operation, "x", row.object, row.old)
		if row.operation == create || row.operation == update || row.operation == ephemeral {
			if got := matches(t, mutatePod, q); got != row.mutatePod {
				t.Errorf("%s: MatchMutatePod is %v", row.what, got)
			}
		}
		if got := matches(t, validateNamespace, q); got != row.validateNamespace {
			t.Errorf("%s: MatchValidateNamespace is %v", row.what, got)
		}
		if got := matches(t, validatePod, q); got != row.validatePod {
			t.Errorf("%s: MatchValidatePod is %v", row.what, got)
		}
	}

	matchBundle := compile(t, MatchBundle)
	bundle, other := map[string]any{"metadata": map[string]any{"name": "aegrail-ca-bundle"}}, map[string]any{"metadata": map[string]any{"generateName": "x"}}
	for _, row := range []struct {
		operation   string
		object, old any
		want        bool
	}{
		{"CREATE", bundle, nil, true}, {"UPDATE", bundle, bundle, true}, {"DELETE", nil, bundle, true},
		{"CREATE", other, nil, false}, {"UPDATE", other, other, false}, {"DELETE", nil, other, false},
	} {
		if got := matches(t, matchBundle, question(t, row.operation+" configmaps", "x", row.object, row.old)); got != row.want {
			t.Errorf("%s %v: MatchBundle is %v", row.operation, row.object, got)
		}
	}
}
