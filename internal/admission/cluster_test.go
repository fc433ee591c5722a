package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func namespace(name string, labels map[string]string, conditions ...corev1.NamespaceCondition) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Status: corev1.NamespaceStatus{Conditions: conditions}}
}

func bundle(namespace string, annotations map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "aegrail-ca-bundle", Annotations: annotations}}
}

func TestWhatIsKnownOfANamespace(t *testing.T) {
	enabled := map[string]string{"aegrail.io/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted"}
	notReady := corev1.NamespaceCondition{Type: "aegrail.io/CAReady", Status: corev1.ConditionFalse, Reason: "NoCertManager", Message: "install it"}
	ready := corev1.NamespaceCondition{Type: "aegrail.io/CAReady", Status: corev1.ConditionTrue, Reason: "Issued"}
	reader := fake.NewClientBuilder().WithObjects(
		namespace("full", enabled, ready), bundle("full", map[string]string{"aegrail.io/ca-generation": "12"}),
		namespace("bare", nil),
		namespace("waiting", enabled, notReady),
		namespace("empty", map[string]string{"aegrail.io/inject": ""}),
		namespace("plain", nil), bundle("plain", nil),
		namespace("odd", nil), bundle("odd", map[string]string{"aegrail.io/ca-generation": "zero"}),
		namespace("zero", nil), bundle("zero", map[string]string{"aegrail.io/ca-generation": "0"}),
	).Build()
	for name, want := range map[string]Namespace{
		"full":    {Inject: "enabled", PodSecurity: "restricted", Bundle: true, CAGeneration: 12},
		"bare":    {},
		"waiting": {Inject: "enabled", PodSecurity: "restricted", NotReady: "NoCertManager: install it"},
		"empty":   {Inject: `""`},
		"plain":   {Bundle: true},
	} {
		got, err := Cluster(reader).Namespace(t.Context(), name)
		if got != want || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, says := range map[string]string{"odd": `"zero"`, "zero": `"0"`, "missing": "not found"} {
		got, err := Cluster(reader).Namespace(t.Context(), name)
		if got != (Namespace{}) || err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestACacheThatFailsIsNoAnswer(t *testing.T) {
	reader := fake.NewClientBuilder().WithObjects(namespace("full", nil)).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if _, is := obj.(*corev1.ConfigMap); is {
				return errors.New("the cache has not started")
			}
			return c.Get(ctx, key, obj, opts...)
		},
	}).Build()
	if got, err := Cluster(reader).Namespace(t.Context(), "full"); got != (Namespace{}) || err == nil || !strings.Contains(err.Error(), "has not started") {
		t.Errorf("%+v, %v", got, err)
	}
}
