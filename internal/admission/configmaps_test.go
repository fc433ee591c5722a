package admission

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const goodPolicy = `apiVersion: aegrail.io/v1alpha1
kind: AgentPolicy
metadata: {name: bot}
spec:
  agents: {namespaces: [support]}
  rules:
    - name: chat
      hosts: [api.openai.com]
      methods: [POST]
      paths: [/v1/chat/completions]
`

// policies is a ConfigMap with policy in it.
func policies(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "aegrail-policy", Labels: map[string]string{"aegrail.io/policy": "true"}},
		Data:       data,
	}
}

func TestAPolicyThatCompilesIsLetIn(t *testing.T) {
	h := newHook(t, nil)
	for what, data := range map[string]map[string]string{
		"one":     {"policy.yaml": goodPolicy},
		"several": {"a.yaml": goodPolicy, "b.yaml": strings.ReplaceAll(goodPolicy, "bot", "other")},
		"none":    {},
	} {
		for _, operation := range []string{"CREATE configmaps", "UPDATE configmaps"} {
			if answer := h.ask(PathValidatePolicy, question(t, operation, "aegrail-system", policies(data), nil)); !answer.Allowed {
				t.Errorf("%s: %s", what, answer.Result.Message)
			}
		}
	}
	wide := strings.Replace(goodPolicy, "  rules:", "  allowlist: [api.openai.com]\n  rules:", 1)
	if answer := h.ask(PathValidatePolicy, question(t, "CREATE configmaps", "aegrail-system", policies(map[string]string{"p": wide}), nil)); !answer.Allowed || len(answer.Warnings) != 1 {
		t.Errorf("a rule that an allowlist widens: %+v", answer)
	}
}

func TestAPolicyThatDoesNotCompileIsRefusedWithItsPlace(t *testing.T) {
	h := newHook(t, nil)
	edit := func(from, to string) map[string]string {
		return map[string]string{"policy.yaml": strings.Replace(goodPolicy, from, to, 1)}
	}
	for what, row := range map[string]struct {
		data map[string]string
		says []string
	}{
		"an unknown key":    {edit("hosts:", "host:"), []string{"data[policy.yaml]:8:", "host"}},
		"no YAML":           {edit("spec:", "spec: ["), []string{"data[policy.yaml]"}},
		"a method":          {edit("[POST]", "[post it]"), []string{"data[policy.yaml]:9:", "methods"}},
		"a condition":       {edit("methods: [POST]", "when: 'request.nothing == 1'"), []string{"data[policy.yaml]:9:", "when"}},
		"nobody's":          {edit("namespaces: [support]", ""), []string{"agents"}},
		"a file":            {edit("methods: [POST]", "upstream: {rootsFile: /roots.pem}"), []string{"data[policy.yaml]:9:", "spec.rules[0].upstream.rootsFile", "the engines' image"}},
		"the same name":     {map[string]string{"a": goodPolicy, "b": goodPolicy}, []string{"bot"}},
		"the second of two": {map[string]string{"a": goodPolicy, "b": "x: 1"}, []string{"data[b]"}},
	} {
		wantRefused(t, what, h.ask(PathValidatePolicy, question(t, "UPDATE configmaps", "aegrail-system", policies(row.data), nil)), row.says...)
	}
	binary := policies(nil)
	binary.BinaryData = map[string][]byte{"policy.yaml": {0}}
	wantRefused(t, "binary", h.ask(PathValidatePolicy, question(t, "CREATE configmaps", "aegrail-system", binary, nil)), "binaryData")
	loose := policies(map[string]string{"p": goodPolicy})
	loose.Labels = nil
	wantRefused(t, "the label goes", h.ask(PathValidatePolicy, question(t, "UPDATE configmaps", "aegrail-system", loose, policies(nil))), "metadata.labels[aegrail.io/policy]")
	broken := question(t, "CREATE configmaps", "aegrail-system", nil, nil)
	broken.Object.Raw = []byte(`{"data":5}`)
	if h.ask(PathValidatePolicy, broken).Allowed {
		t.Error("a ConfigMap that cannot be read is let in")
	}
}

func TestTheBundleIsControlsAlone(t *testing.T) {
	h := newHook(t, nil)
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "aegrail-ca-bundle"}}
	for _, row := range []struct {
		user, operation string
		allowed         bool
	}{
		{writer, "CREATE", true},
		{writer, "UPDATE", true},
		{writer, "DELETE", true},
		{"dev", "CREATE", false},
		{"dev", "UPDATE", false},
		{"dev", "DELETE", false},
		{"system:serviceaccount:support:bot", "UPDATE", false},
		{"system:serviceaccount:kube-system:namespace-controller", "DELETE", true},
		{"system:serviceaccount:kube-system:namespace-controller", "UPDATE", false},
		{"system:serviceaccount:kube-system:generic-garbage-collector", "DELETE", true},
		{"", "UPDATE", false},
	} {
		q := question(t, row.operation+" configmaps", "support", bundle, bundle)
		q.UserInfo = authenticationv1.UserInfo{Username: row.user}
		answer := h.ask(PathValidateBundle, q)
		if answer.Allowed != row.allowed {
			t.Errorf("%s by %q: allowed is %v", row.operation, row.user, answer.Allowed)
		}
		if !row.allowed {
			wantRefused(t, row.operation, answer, "aegrail-control alone", row.user)
		}
	}
}
