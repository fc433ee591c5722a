package namespaces_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

// bundleVolume is how a gateway's agent has the bundle.
func bundleVolume(name string) corev1.PodSpec {
	return corev1.PodSpec{Volumes: []corev1.Volume{{Name: "ca", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
	}}}}
}

// starts makes a pod now that nobody has injected.
func (w *world) starts(name string, spec corev1.PodSpec, edits ...func(*corev1.Pod)) {
	w.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "support", Name: name}, Spec: spec, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	for _, edit := range edits {
		edit(pod)
	}
	if err := w.client.Create(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
}

// gatewayWorld has a namespace in which nothing is injected, settled an hour ago.
func gatewayWorld(t *testing.T) *world {
	w := newWorld(t, namespaces.Options{}, namespace("support", map[string]string{namespaces.LabelCA: "enabled"}, nil))
	w.settle("support")
	w.pass(time.Hour)
	w.reconcile("support")
	return w
}

func (w *world) rotate(value string) {
	w.t.Helper()
	ns := &corev1.Namespace{}
	w.edit(ns, "", "support", func() { ns.Annotations = map[string]string{namespaces.AnnotationRotateRoot: value} })
	w.settle("support")
}

// later looks again each half an hour.
func (w *world) later(hours int) {
	w.t.Helper()
	for range 2 * hours {
		w.pass(30 * time.Minute)
		w.reconcile("support")
	}
}

// signs wants gateways to sign with a generation.
func (w *world) signs(want int) {
	w.t.Helper()
	if got, err := namespaces.Signing(w.t.Context(), w.client, "support"); err != nil || got != want {
		w.t.Errorf("gateways sign with generation %d (%v), want %d", got, err, want)
	}
}

// has wants a generation to be whole, or gone.
func (w *world) has(name string, want bool) {
	w.t.Helper()
	for _, obj := range []client.Object{&cmv1.Certificate{}, &cmv1.Issuer{}, &corev1.Secret{}} {
		if w.get(obj, control, name) != want {
			w.t.Errorf("%T %s is there: %v", obj, name, !want)
		}
	}
}

// gatewayHas gives a gateway an authority of the first generation.
func (w *world) gatewayHas(request string) {
	w.t.Helper()
	authority := &cmv1.CertificateRequest{ObjectMeta: metav1.ObjectMeta{
		Namespace: control, Name: request, Annotations: map[string]string{inject.AnnotationCAGeneration: "1"},
		Labels: map[string]string{"app.kubernetes.io/managed-by": "aegrail-control", "aegrail.io/namespace": control, "aegrail.io/pod-uid": "9"},
	}}
	authority.Spec.IssuerRef.Name = "aegrail-ca-support-1"
	if err := w.client.Create(w.t.Context(), authority); err != nil {
		w.t.Fatal(err)
	}
}

func TestAGatewaysAgentsKeepTheRootThatTheyTrust(t *testing.T) {
	w := gatewayWorld(t)
	w.starts("old", bundleVolume(inject.BundleConfigMap))
	w.rotate("1")
	first, second := w.root("aegrail-ca-support-1"), w.root("aegrail-ca-support-2")
	w.starts("on its way", bundleVolume(inject.BundleConfigMap)) // kubelet may have the bundle from before yet
	w.later(24)
	w.signs(1)
	w.has("aegrail-ca-support-1", true)
	checkBundle(t, w, 2, first, second)
	if got := w.condition("support"); !strings.HasPrefix(got, "True Ready generation 2") || !strings.Contains(got, "gateways sign with generation 1 while pods") {
		t.Errorf("condition %q", got)
	}
	w.starts("new", bundleVolume(inject.BundleConfigMap))
	for _, leaves := range []string{"old", "on its way"} {
		w.later(1)
		w.signs(1)
		w.delete(&corev1.Pod{}, "support", leaves)
	}

	// All trust the second one now. A gateway has an authority of the first yet,
	// which a pod that starts without the first in its bundle would not trust.
	w.gatewayHas("aegrail-pod-9-1")
	w.reconcile("support")
	w.signs(2)
	w.later(24)
	w.has("aegrail-ca-support-1", true)
	if got := w.condition("support"); strings.Contains(got, "gateways") {
		t.Errorf("condition %q", got)
	}
	w.delete(&cmv1.CertificateRequest{}, control, "aegrail-pod-9-1")
	w.reconcile("support")
	w.has("aegrail-ca-support-1", true)
	w.pass(namespaces.RetireAfter)
	w.reconcile("support")
	w.reconcile("support")
	w.has("aegrail-ca-support-1", false)
	checkBundle(t, w, 2, second)
	w.signs(2)
}

// TestEachRootIsKeptForThoseThatTrustNoNewerOne: the one in the middle is not
// signed with, and will be.
func TestEachRootIsKeptForThoseThatTrustNoNewerOne(t *testing.T) {
	w := gatewayWorld(t)
	for i, generation := range []string{"one", "two", "three"} {
		if i > 0 {
			w.rotate(generation)
		}
		w.later(1)
		w.starts(generation, bundleVolume(inject.BundleConfigMap))
	}
	for i, leaves := range []string{"one", "two"} {
		w.later(2)
		w.signs(i + 1)
		w.has("aegrail-ca-support-2", true)
		w.delete(&corev1.Pod{}, "support", leaves)
		w.reconcile("support")
	}
	w.later(1)
	w.signs(3)
	w.has("aegrail-ca-support-1", false)
	w.has("aegrail-ca-support-2", false)
}

func TestANewRootSignsOnceEachPodThatStartsHasIt(t *testing.T) {
	w := gatewayWorld(t)
	w.rotate("1")
	w.signs(1) // nobody is there, and one may start with the bundle from before
	w.pass(time.Minute)
	w.reconcile("support")
	w.signs(2)
}

func TestWhoHasTheBundleIsCounted(t *testing.T) {
	bundle := corev1.LocalObjectReference{Name: inject.BundleConfigMap}
	variable := corev1.Container{Name: "a", Env: []corev1.EnvVar{{Name: "CA", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: bundle}}}}}
	for what, row := range map[string]struct {
		spec corev1.PodSpec
		edit func(*corev1.Pod)
		want bool
	}{
		"as a volume": {bundleVolume(inject.BundleConfigMap), func(*corev1.Pod) {}, true},
		"as a part of a volume": {corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{}, {ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: bundle}}},
		}}}}}, func(*corev1.Pod) {}, true},
		"as a variable":                      {corev1.PodSpec{Containers: []corev1.Container{variable}}, func(*corev1.Pod) {}, true},
		"as a variable of an init container": {corev1.PodSpec{InitContainers: []corev1.Container{variable}}, func(*corev1.Pod) {}, true},
		"as variables": {corev1.PodSpec{Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: bundle}}}}}},
			func(*corev1.Pod) {}, true},
		"another ConfigMap": {bundleVolume("other"), func(*corev1.Pod) {}, false},
		"nothing":           {corev1.PodSpec{Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "x", Value: "y"}}}}}, func(*corev1.Pod) {}, false},
		"and it has ended":  {bundleVolume(inject.BundleConfigMap), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		"and it is injected with the next": {bundleVolume(inject.BundleConfigMap), func(p *corev1.Pod) {
			p.Labels, p.Annotations = map[string]string{inject.LabelInjected: "true"}, map[string]string{inject.AnnotationCAGeneration: "2"}
		}, false},
	} {
		t.Run(what, func(t *testing.T) {
			w := gatewayWorld(t)
			w.starts("bot", row.spec, row.edit)
			w.rotate("1")
			w.later(2)
			w.has("aegrail-ca-support-1", row.want)
			w.signs(map[bool]int{true: 1, false: 2}[row.want])
		})
	}
}

// TestACertificateThatSomebodyDeletedIsMadeAnewForAGatewaysAgents: they trust its
// key. Without a gateway that signs with it, or without agents, it is nobody's.
func TestACertificateThatSomebodyDeletedIsMadeAnewForAGatewaysAgents(t *testing.T) {
	for _, row := range []struct {
		agents, gateway bool
		want            int
	}{{true, true, 1}, {true, false, 2}, {false, true, 2}} {
		w := gatewayWorld(t)
		if row.agents {
			w.starts("bot", bundleVolume(inject.BundleConfigMap))
		}
		if row.gateway {
			w.gatewayHas("aegrail-pod-9-1")
		}
		w.delete(&cmv1.Certificate{}, control, "aegrail-ca-support-1")
		w.settle("support")
		w.reconcile("support")
		w.signs(row.want)
	}
}

func TestWithoutItsLabelANamespaceKeepsItsCAForAGatewaysAgents(t *testing.T) {
	w := gatewayWorld(t)
	w.starts("bot", bundleVolume(inject.BundleConfigMap))
	ns := &corev1.Namespace{}
	w.edit(ns, "", "support", func() { ns.Labels = nil })
	w.later(2)
	w.wants("support", "True Leaving")
	w.has("aegrail-ca-support-1", true)
	if w.bundle("support") == nil {
		t.Error("the bundle is taken away under a pod that has it")
	}
	w.delete(&corev1.Pod{}, "support", "bot")
	w.later(1)
	w.has("aegrail-ca-support-1", false)
	if w.bundle("support") != nil {
		t.Error("the bundle stays")
	}
}

func TestWhereItIsNotKnownWhoHasTheBundleNothingIsRemoved(t *testing.T) {
	for _, what := range []string{"list PodList", "list CertificateRequestList"} {
		w := gatewayWorld(t)
		w.rotate("1")
		w.fail[what] = errors.New("the server is on holiday")
		for range 3 {
			_, err := w.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "support"}})
			w.pass(namespaces.RetireAfter)
			if err == nil {
				t.Errorf("%s: no error, so it is not tried again", what)
			}
		}
		w.has("aegrail-ca-support-1", true)
		delete(w.fail, what)
		w.later(1)
		w.has("aegrail-ca-support-1", false)
	}
}
