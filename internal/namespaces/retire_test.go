package namespaces_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

func TestWithoutItsLabelANamespaceKeepsItsCAForItsPods(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("bot", 1, corev1.PodRunning), agent("done", 1, corev1.PodFailed))
	w.settle("support")
	ns := &corev1.Namespace{}
	w.edit(ns, "", "support", func() { ns.Labels = nil })
	for range 3 {
		w.reconcile("support")
		w.pass(time.Hour)
	}
	w.wants("support", "True Leaving")
	if w.bundle("support") == nil || !w.get(&cmv1.Issuer{}, control, "aegrail-ca-support-1") {
		t.Error("taken away under a pod that runs")
	}
	w.delete(&corev1.Pod{}, "support", "bot")
	w.reconcile("support")
	if w.bundle("support") == nil {
		t.Error("taken away while a pod may be on its way")
	}
	w.pass(namespaces.RetireAfter)
	w.reconcile("support")
	for _, gone := range []client.Object{&cmv1.Certificate{}, &cmv1.Issuer{}, &corev1.Secret{}} {
		if w.get(gone, control, "aegrail-ca-support-1") {
			t.Errorf("%T is still there", gone)
		}
	}
	if w.bundle("support") != nil || w.states["support"] != namespaces.Gone {
		t.Errorf("bundle or report %v", w.states)
	}
	w.wants("support", "")
	w.changed()
	w.reconcile("support")
	if changed := w.changed(); len(changed) > 0 {
		t.Errorf("changed %q", changed)
	}
}

// TestALabelThatIsTakenOffUnderInjectedPodsIsTold: what starts there from then on nobody holds.
func TestALabelThatIsTakenOffUnderInjectedPodsIsTold(t *testing.T) {
	asked, annotated := agent("asked", 1, corev1.PodRunning), agent("annotated", 1, corev1.PodRunning)
	asked.Labels[inject.LabelInject], annotated.Annotations[inject.LabelInject] = inject.InjectPod, inject.InjectPod
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("bot", 1, corev1.PodRunning), agent("done", 1, corev1.PodSucceeded), asked, annotated)
	w.settle("support")
	w.told()
	ns := &corev1.Namespace{}
	becomes := func(what string, want namespaces.State, event bool, labels map[string]string) {
		t.Helper()
		w.edit(ns, "", "support", func() { ns.Labels = labels })
		w.reconcile("support")
		if got := w.states["support"]; got != want {
			t.Errorf("%s: it is %s, want %s", what, got, want)
		}
		if told := w.told(); strings.Contains(told, "InjectionReleased") != event {
			t.Errorf("%s: events %q", what, told)
		}
	}
	becomes("with the label", namespaces.Ready, false, injected())
	becomes("without the label", namespaces.Released, true, nil)
	becomes("still without it", namespaces.Released, false, nil)
	becomes("with the label again", namespaces.Ready, false, injected())
	becomes("where pods ask themselves from now on", namespaces.Released, true, map[string]string{namespaces.LabelCA: "enabled"})
	becomes("with a value that lets no pod be made", namespaces.Ready, false, map[string]string{inject.LabelInject: "yes", namespaces.LabelCA: "enabled"})
	w.delete(&corev1.Pod{}, "support", "bot")
	becomes("when the last such pod is gone", namespaces.Ready, false, map[string]string{namespaces.LabelCA: "enabled"})
	if log := w.log.String(); strings.Count(log, "lost the label") != 2 {
		t.Errorf("the log says %s", log)
	}
	w.fail["list PodList"] = errors.New("no pods today")
	if _, err := w.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "support"}}); err == nil || !strings.Contains(err.Error(), "no pods today") {
		t.Errorf("pods that cannot be listed: %v", err)
	}
}

func TestANamespaceThatIsGoneLeavesNothing(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	w.delete(&corev1.Namespace{}, "", "support")
	w.reconcile("support")
	w.pass(namespaces.RetireAfter)
	w.reconcile("support")
	var list cmv1.CertificateList
	if err := w.client.List(t.Context(), &list); err != nil || len(list.Items) > 0 {
		t.Errorf("%d certificates left, %v", len(list.Items), err)
	}
	if w.get(&corev1.Secret{}, control, "aegrail-ca-support-1") {
		t.Error("the key is left")
	}
}

// TestAKeyThatCouldNotBeDeletedIsFoundAgain: its Certificate is gone by then.
func TestAKeyThatCouldNotBeDeletedIsFoundAgain(t *testing.T) {
	const name = "aegrail-ca-support-1"
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	w.delete(&corev1.Namespace{}, "", "support")
	w.reconcile("support")
	w.pass(namespaces.RetireAfter)
	w.fail["delete Secret"] = errors.New("the server is on holiday")
	if _, err := w.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "support"}}); err == nil {
		t.Error("no error, so it is not tried again")
	}
	if w.get(&cmv1.Certificate{}, control, name) || !w.get(&corev1.Secret{}, control, name) {
		t.Fatal("the world is not as this is about")
	}
	left := w.root(name)

	// A new namespace of that name does not get the key.
	if err := w.client.Create(t.Context(), namespace("support", injected(), nil)); err != nil {
		t.Fatal(err)
	}
	w.settle("support")
	w.wants("support", "True Ready generation 2")
	checkBundle(t, w, 2, w.root("aegrail-ca-support-2"))
	if w.root("aegrail-ca-support-2").Equal(left) {
		t.Error("the key is used again")
	}
	delete(w.fail, "delete Secret")
	w.pass(namespaces.RetireAfter)
	w.reconcile("support")
	if w.get(&corev1.Secret{}, control, name) {
		t.Error("the key stays")
	}

	// And where no namespace follows, it goes as well.
	w.delete(&cmv1.Certificate{}, control, "aegrail-ca-support-2")
	w.delete(&corev1.Namespace{}, "", "support")
	w.reconcile("support")
	w.pass(namespaces.RetireAfter)
	w.reconcile("support")
	if w.get(&corev1.Secret{}, control, "aegrail-ca-support-2") {
		t.Error("the key of a namespace that is gone stays")
	}
}

// TestACertificateThatSomebodyDeletedIsMadeAnewForItsPods: they trust its key.
func TestACertificateThatSomebodyDeletedIsMadeAnewForItsPods(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("bot", 1, corev1.PodRunning))
	w.settle("support")
	w.delete(&cmv1.Certificate{}, control, "aegrail-ca-support-1")
	w.settle("support")
	w.wants("support", "True Ready generation 1")
}
