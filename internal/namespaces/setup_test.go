package namespaces

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

func TestANamespaceIsLookedAtForWhatItIsAskedBy(t *testing.T) {
	base := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "support", Labels: map[string]string{"a": "b"}}}
	for what, row := range map[string]struct {
		edit func(*corev1.Namespace)
		want bool
	}{
		"nothing": {func(*corev1.Namespace) {}, false},
		"our own condition": {func(n *corev1.Namespace) {
			n.Status.Conditions = []corev1.NamespaceCondition{{Type: inject.ConditionReady}}
		}, false},
		"an annotation": {func(n *corev1.Namespace) { n.Annotations = map[string]string{"x": "y"} }, false},
		"a label":       {func(n *corev1.Namespace) { n.Labels = map[string]string{inject.LabelInject: "enabled"} }, true},
		"a new root":    {func(n *corev1.Namespace) { n.Annotations = map[string]string{AnnotationRotateRoot: "1"} }, true},
		"its end":       {func(n *corev1.Namespace) { n.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, true},
	} {
		after := base.DeepCopy()
		row.edit(after)
		if got := asked().Update(event.UpdateEvent{ObjectOld: base, ObjectNew: after}); got != row.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if !asked().Create(event.CreateEvent{Object: base}) || !asked().Delete(event.DeleteEvent{Object: base}) {
		t.Error("a namespace comes or goes unseen")
	}
}

func TestAPodIsLookedAtForItsEnd(t *testing.T) {
	running, done := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}, &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	p := ended()
	if p.Create(event.CreateEvent{Object: running}) || p.Generic(event.GenericEvent{Object: running}) || p.Update(event.UpdateEvent{ObjectOld: running, ObjectNew: running}) {
		t.Error("a pod that runs")
	}
	if !p.Update(event.UpdateEvent{ObjectOld: running, ObjectNew: done}) || !p.Delete(event.DeleteEvent{Object: running}) {
		t.Error("a pod that ends")
	}
}

func TestTheCacheHoldsOfPodsWhatIsLookedAt(t *testing.T) {
	full := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "support", Name: "bot", UID: "u", Labels: map[string]string{inject.LabelInjected: "true", inject.LabelInject: "true", "app": "x"}, Annotations: map[string]string{inject.AnnotationCAGeneration: "2", "secret": "x"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "x"}}}, Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	out, err := slim(full)
	pod, ok := out.(*corev1.Pod)
	if err != nil || !ok || pod.Annotations[inject.AnnotationCAGeneration] != "2" || pod.Status.Phase != corev1.PodRunning || pod.Name != "bot" {
		t.Errorf("%+v, %v", out, err)
	}
	if len(pod.Spec.Containers) > 0 || len(pod.Labels) != 2 || pod.Labels[inject.LabelInject] != "true" || pod.Annotations["secret"] != "" || pod.Status.PodIP != "" {
		t.Errorf("more than is looked at: %+v", pod)
	}
	if other, err := slim("x"); err != nil || other != "x" {
		t.Errorf("%v, %v", other, err)
	}
	if len(Cached()) != 2 {
		t.Errorf("%d kinds are cached by selector", len(Cached()))
	}
}

func orphanage(t *testing.T, objects ...client.Object) *Reconciler {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), cmv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	b := fake.NewClientBuilder().WithScheme(scheme)
	for _, o := range objects {
		b = b.WithObjects(o)
	}
	c := b.Build()
	r, err := New(Options{
		Namespace: "aegrail-system", Client: c, Live: c, Events: events.NewFakeRecorder(10), Logger: slog.New(slog.DiscardHandler),
		PublicRoots: func() ([]byte, error) { return nil, nil }, ControlCA: func() ([]byte, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNamespacesThatWentUnseenAreFound(t *testing.T) {
	at := metav1.ObjectMeta{Namespace: "aegrail-system", Name: "aegrail-ca-gone-1", Labels: ownLabels("gone", 1)}
	var r *Reconciler
	for _, left := range []client.Object{&cmv1.Certificate{ObjectMeta: at}, &corev1.Secret{ObjectMeta: at}} {
		r = orphanage(t, left)
		found := make(chan event.GenericEvent, 2)
		if err := r.findOrphans(t.Context(), found); err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 {
			t.Fatalf("%T: %d namespaces", left, len(found))
		}
		if e := <-found; e.Object.GetName() != "gone" || !r.noted("gone") {
			t.Errorf("%T: %v", left, e.Object)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.findOrphans(ended, make(chan event.GenericEvent)); err != nil {
		t.Error(err)
	}
}

func TestTheControllerIsSetUp(t *testing.T) {
	r := orphanage(t)
	mgr, err := manager.New(&rest.Config{Host: "127.0.0.1:1"}, manager.Options{Scheme: r.Client.Scheme(), Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Setup(mgr); err != nil {
		t.Error(err)
	}
}
