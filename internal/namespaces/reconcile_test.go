package namespaces_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

func TestALabelledNamespaceGetsACAAndABundle(t *testing.T) {
	for _, labels := range []map[string]string{injected(), {namespaces.LabelCA: "enabled"}} {
		w := newWorld(t, namespaces.Options{}, namespace("support", labels, nil))
		result := w.reconcile("support")
		if w.wants("support", "False Issuing"); result.RequeueAfter == 0 || w.bundle("support") != nil {
			t.Errorf("looked at again after %s, bundle %v", result.RequeueAfter, w.bundle("support"))
		}
		w.issue()
		w.reconcile("support")
		w.wants("support", "True Ready generation 1")
		if told := w.told(); !strings.Contains(told, "CARequested") || !strings.Contains(told, "BundlePublished") || !strings.Contains(told, "Normal CAReady") {
			t.Errorf("events %s", told)
		}
		checkBundle(t, w, 1, w.root("aegrail-ca-support-1"))
		checkCertificate(t, w)
		if w.states["support"] != namespaces.Ready {
			t.Errorf("reported %v", w.states)
		}
	}
}

func checkCertificate(t *testing.T, w *world) {
	t.Helper()
	c := &cmv1.Certificate{}
	if !w.get(c, control, "aegrail-ca-support-1") {
		t.Fatal("no Certificate")
	}
	s := c.Spec
	if !s.IsCA || s.PrivateKey.Algorithm != cmv1.ECDSAKeyAlgorithm || s.PrivateKey.Size != 256 || s.PrivateKey.RotationPolicy != cmv1.RotationPolicyNever ||
		s.Duration.Hours() < 4*365*24 || s.SecretName != c.Name || s.IssuerRef.Name != "aegrail-roots" {
		t.Errorf("%+v", s)
	}
	issuer := &cmv1.Issuer{}
	if !w.get(issuer, control, "aegrail-ca-support-1") || issuer.Spec.CA == nil || issuer.Spec.CA.SecretName != s.SecretName {
		t.Errorf("issuer %+v", issuer.Spec)
	}
	if !w.get(issuer, control, "aegrail-roots") || issuer.Spec.SelfSigned == nil {
		t.Errorf("issuer of roots %+v", issuer.Spec)
	}
}

// checkBundle holds a bundle to the generations that it must have.
func checkBundle(t *testing.T, w *world, newest int, roots ...*x509.Certificate) {
	t.Helper()
	b := w.bundle("support")
	if b == nil {
		t.Fatal("no bundle")
	}
	if got := b.Annotations[inject.AnnotationCAGeneration]; got != string(rune('0'+newest)) {
		t.Errorf("the newest generation is %s, want %d", got, newest)
	}
	want := string(encode(append([]*x509.Certificate{w.public.cert}, roots...)...))
	if b.Data[inject.BundlePEM] != want {
		t.Errorf("%d certificates in the bundle, want %d", strings.Count(b.Data[inject.BundlePEM], "BEGIN"), 1+len(roots))
	}
	if b.Data[inject.BundleControl] != string(encode(w.link.cert)) {
		t.Error("control's CA is not in the bundle")
	}
	store, err := pkcs12.DecodeTrustStore(b.BinaryData[inject.BundleP12], inject.BundlePassword)
	if err != nil || len(store) != 1+len(roots) {
		t.Errorf("%d certificates in the trust store: %v", len(store), err)
	}
	if text := b.Data[inject.BundlePEM] + b.Data[inject.BundleControl]; strings.Contains(text, "PRIVATE") {
		t.Error("a key is in the bundle")
	}
}

func TestASettledNamespaceIsLeftAlone(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	before := w.bundle("support")
	w.reconcile("support")
	w.changed()
	w.told()
	for range 3 {
		w.pass(time.Hour)
		if result := w.reconcile("support"); result.RequeueAfter < time.Minute {
			t.Errorf("looked at again after %s", result.RequeueAfter)
		}
	}
	if changed := w.changed(); len(changed) > 0 {
		t.Errorf("changed %q", changed)
	}
	if told := w.told(); told != "" {
		t.Errorf("events %s", told)
	}
	if after := w.bundle("support"); after.ResourceVersion != before.ResourceVersion {
		t.Error("the bundle was written again")
	}
}

func TestWhatSomebodyElseChangesIsPutRight(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	root := w.root("aegrail-ca-support-1")
	evil := string(encode(newCA(t, "evil", nil, nil).cert))
	for what, change := range map[string]func(){
		"the bundle's roots": func() {
			b := &corev1.ConfigMap{}
			w.edit(b, "support", inject.BundleConfigMap, func() { b.Data[inject.BundlePEM] = evil })
		},
		"control's CA": func() {
			b := &corev1.ConfigMap{}
			w.edit(b, "support", inject.BundleConfigMap, func() { b.Data[inject.BundleControl] = evil })
		},
		"the trust store": func() {
			b := &corev1.ConfigMap{}
			w.edit(b, "support", inject.BundleConfigMap, func() { b.BinaryData = nil })
		},
		"the generation": func() {
			b := &corev1.ConfigMap{}
			w.edit(b, "support", inject.BundleConfigMap, func() { b.Annotations[inject.AnnotationCAGeneration] = "9" })
		},
		"a key more": func() {
			b := &corev1.ConfigMap{}
			w.edit(b, "support", inject.BundleConfigMap, func() { b.Data["more"] = "x" })
		},
		"no bundle": func() { w.delete(&corev1.ConfigMap{}, "support", inject.BundleConfigMap) },
		"an immutable bundle": func() {
			b := &corev1.ConfigMap{}
			w.edit(b, "support", inject.BundleConfigMap, func() { b.Data[inject.BundlePEM], b.Immutable = evil, new(true) })
		},
		"no issuer": func() { w.delete(&cmv1.Issuer{}, control, "aegrail-ca-support-1") },
		"another issuer's Secret": func() {
			i := &cmv1.Issuer{}
			w.edit(i, control, "aegrail-ca-support-1", func() { i.Spec.CA.SecretName = "other" })
		},
		"a certificate for a day": func() {
			c := &cmv1.Certificate{}
			w.edit(c, control, "aegrail-ca-support-1", func() { c.Spec.Duration = &metav1.Duration{Duration: 24 * time.Hour} })
		},
	} {
		t.Run(what, func(t *testing.T) {
			change()
			w.reconcile("support")
			checkBundle(t, w, 1, root)
			checkCertificate(t, w)
			if _, more := w.bundle("support").Data["more"]; more {
				t.Error("a key that is not ours is still there")
			}
		})
	}
}

func TestWithoutCertManagerTheConditionSaysWhatToInstall(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.missing = true
	result := w.reconcile("support")
	w.wants("support", "False CertManagerMissing")
	if told := w.told(); !strings.Contains(told, "Warning CACertManagerMissing") || !strings.Contains(told, "install cert-manager") {
		t.Errorf("events %s", told)
	}
	if result.RequeueAfter == 0 || result.RequeueAfter > time.Minute {
		t.Errorf("looked at again after %s", result.RequeueAfter)
	}
	w.reconcile("support")
	if told := w.told(); told != "" {
		t.Errorf("told again: %s", told)
	}
	w.missing = false // somebody installs it
	w.settle("support")
	w.wants("support", "True Ready")
}

func TestRootsKeyIsChangedByAnAnnotation(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("old", 1, corev1.PodRunning))
	w.settle("support")
	first := w.root("aegrail-ca-support-1")
	rotate := func(value string) {
		ns := &corev1.Namespace{}
		w.edit(ns, "", "support", func() { ns.Annotations = map[string]string{namespaces.AnnotationRotateRoot: value} })
	}
	rotate("2026-11")
	w.reconcile("support")
	w.wants("support", "True Ready generation 1") // until the next one is there
	checkBundle(t, w, 1, first)
	w.settle("support")
	second := w.root("aegrail-ca-support-2")
	w.wants("support", "True Ready generation 2")
	checkBundle(t, w, 2, first, second)
	if bytes.Equal(first.RawSubjectPublicKeyInfo, second.RawSubjectPublicKeyInfo) {
		t.Error("the key is the same")
	}

	w.reconcile("support") // the same value is no news
	w.pass(time.Hour)
	w.reconcile("support")
	w.pass(time.Hour)
	w.reconcile("support")
	checkBundle(t, w, 2, first, second)
	if w.get(&cmv1.Certificate{}, control, "aegrail-ca-support-3") {
		t.Error("a third generation")
	}

	w.delete(&corev1.Pod{}, "support", "old")
	if result := w.reconcile("support"); result.RequeueAfter > namespaces.RetireAfter {
		t.Errorf("looked at again after %s", result.RequeueAfter)
	}
	checkBundle(t, w, 2, first, second) // a pod may still be on its way
	w.pass(namespaces.RetireAfter)
	w.reconcile("support")
	w.reconcile("support")
	checkBundle(t, w, 2, second)
	for _, gone := range []client.Object{&cmv1.Certificate{}, &cmv1.Issuer{}, &corev1.Secret{}} {
		if w.get(gone, control, "aegrail-ca-support-1") {
			t.Errorf("%T of the first generation is still there", gone)
		}
	}

	rotate("2026-12")
	w.settle("support")
	w.wants("support", "True Ready generation 3")
}

// TestAGenerationGoesSoonWhereItsLastPodEndsBeforeTheNextSigns: no event tells that gateways may sign with the next one.
func TestAGenerationGoesSoonWhereItsLastPodEndsBeforeTheNextSigns(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("old", 1, corev1.PodRunning))
	w.settle("support")
	ns := &corev1.Namespace{}
	w.edit(ns, "", "support", func() { ns.Annotations = map[string]string{namespaces.AnnotationRotateRoot: "2026-11"} })
	w.settle("support")
	w.settle("support")
	w.delete(&corev1.Pod{}, "support", "old")
	for begun := w.clock(); w.get(&corev1.Secret{}, control, "aegrail-ca-support-1"); {
		w.pass(w.reconcile("support").RequeueAfter)
		if late := w.clock().Sub(begun); late > 3*time.Minute {
			t.Fatalf("the first generation is still there after %s", late)
		}
	}
}

func TestAGenerationStaysForPodsThatDoNotSayWhichTheyHave(t *testing.T) {
	unmarked := agent("unmarked", 1, corev1.PodRunning)
	unmarked.Annotations = nil
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), unmarked, agent("done", 1, corev1.PodSucceeded))
	w.settle("support")
	ns := &corev1.Namespace{}
	w.edit(ns, "", "support", func() { ns.Annotations = map[string]string{namespaces.AnnotationRotateRoot: "x"} })
	w.settle("support")
	for range 3 {
		w.pass(time.Hour)
		w.reconcile("support")
	}
	if !w.get(&cmv1.Certificate{}, control, "aegrail-ca-support-1") {
		t.Error("removed")
	}
	w.delete(&corev1.Pod{}, "support", "unmarked") // what is left has ended
	w.reconcile("support")
	w.pass(time.Hour)
	w.reconcile("support")
	if w.get(&cmv1.Certificate{}, control, "aegrail-ca-support-1") {
		t.Error("not removed")
	}
}

func TestAKeyThatWasLostBeginsAGeneration(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("old", 1, corev1.PodRunning))
	w.settle("support")
	w.reconcile("support")
	w.told()
	w.delete(&corev1.Secret{}, control, "aegrail-ca-support-1")
	w.settle("support") // cert-manager makes another key for it
	if told := w.told(); !strings.Contains(told, "Warning KeyReplaced") || !strings.Contains(told, "restart the pods") {
		t.Errorf("events %s", told)
	}
	w.settle("support")
	w.wants("support", "True Ready generation 2")
	checkBundle(t, w, 2, w.root("aegrail-ca-support-2"))
}

func TestARenewalKeepsTheGeneration(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	before := w.root("aegrail-ca-support-1")
	secret := &corev1.Secret{}
	w.edit(secret, control, "aegrail-ca-support-1", func() {
		block := secret.Data["tls.key"]
		renewed := newCA(t, before.Subject.CommonName, parseKey(t, block), nil, func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(6, 0, 0) })
		secret.Data = secretData(t, renewed, encode(renewed.cert), encode(renewed.cert))
	})
	w.reconcile("support")
	after := w.root("aegrail-ca-support-1")
	checkBundle(t, w, 1, after)
	if bytes.Equal(before.Raw, after.Raw) {
		t.Error("nothing was renewed")
	}
}

func TestOtherNamespacesAreNotTouched(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("plain", nil, nil), namespace("typo", map[string]string{inject.LabelInject: "true"}, nil), namespace(control, injected(), nil))
	for _, name := range []string{"plain", "typo", control, "never-was"} {
		w.reconcile(name)
		w.pass(time.Hour)
		w.reconcile(name)
	}
	if changed := w.changed(); len(changed) > 0 {
		t.Errorf("changed %q", changed)
	}
}

func TestWhatTheAPIServerRefusesIsInTheCondition(t *testing.T) {
	for _, what := range []string{"create Certificate", "create Issuer", "list CertificateList", "create ConfigMap", "get ConfigMap"} {
		w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
		if strings.Contains(what, "ConfigMap") {
			w.settle("support")
			w.delete(&corev1.ConfigMap{}, "support", inject.BundleConfigMap)
		}
		w.fail[what] = errors.New("the server is on holiday")
		_, err := w.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "support"}})
		if err == nil {
			t.Errorf("%s: no error, so it is not tried again", what)
		}
		w.wants("support", "False Failed")
		if !strings.Contains(w.condition("support"), "on holiday") {
			t.Errorf("%s: %s", what, w.condition("support"))
		}
		delete(w.fail, what)
		w.settle("support")
		w.wants("support", "True Ready")
	}
}

// TestASecretThatCannotBeReadTakesNothingFromTheBundle: pods that trust that
// root alone would trust nothing any more.
func TestASecretThatCannotBeReadTakesNothingFromTheBundle(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), agent("old", 1, corev1.PodRunning))
	w.settle("support")
	ns := &corev1.Namespace{}
	w.edit(ns, "", "support", func() { ns.Annotations = map[string]string{namespaces.AnnotationRotateRoot: "x"} })
	w.settle("support")
	first, second := w.root("aegrail-ca-support-1"), w.root("aegrail-ca-support-2")
	checkBundle(t, w, 2, first, second)
	for _, name := range []string{"aegrail-ca-support-1", "aegrail-ca-support-2"} {
		w.fail["get Secret "+name] = errors.New("the server is on holiday")
		_, err := w.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "support"}})
		if err == nil {
			t.Errorf("%s: no error, so it is not tried again", name)
		}
		delete(w.fail, "get Secret "+name)
		checkBundle(t, w, 2, first, second)
	}
	w.reconcile("support")
	w.wants("support", "True Ready generation 2")
}

func TestFilesThatAreMissingAreInTheCondition(t *testing.T) {
	for want, change := range map[string]func(*namespaces.Reconciler){
		"public roots": func(r *namespaces.Reconciler) {
			r.PublicRoots = func() ([]byte, error) { return nil, errors.New("no such file") }
		},
		"control's CA": func(r *namespaces.Reconciler) {
			r.ControlCA = func() ([]byte, error) { return nil, errors.New("no such file") }
		},
		"no certificate in it": func(r *namespaces.Reconciler) { r.ControlCA = func() ([]byte, error) { return []byte("x"), nil } },
	} {
		w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
		change(w.r)
		w.reconcile("support")
		w.issue()
		_, err := w.r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "support"}})
		if err == nil || !strings.Contains(w.condition("support"), want) {
			t.Errorf("%v, condition %q, want %q", err, w.condition("support"), want)
		}
	}
}

func TestIssuersAreNamedByKindAndName(t *testing.T) {
	for text, want := range map[string]cmmeta.IssuerReference{
		"Issuer/a":                    {Kind: "Issuer", Name: "a", Group: "cert-manager.io"},
		"ClusterIssuer/b":             {Kind: "ClusterIssuer", Name: "b", Group: "cert-manager.io"},
		"AWSPCAIssuer.awspca.io/prod": {Kind: "AWSPCAIssuer", Name: "prod", Group: "awspca.io"},
	} {
		if got, err := namespaces.ParseIssuer(text); err != nil || *got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if got, err := namespaces.ParseIssuer(""); err != nil || got != nil {
		t.Errorf("none: %+v, %v", got, err)
	}
	for _, text := range []string{"a", "/a", "Issuer/", "Issuer./a", "Issuer/a/b"} {
		if got, err := namespaces.ParseIssuer(text); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestAReconcilerThatWouldLeaveNamespacesInTheDarkIsNotMade(t *testing.T) {
	w := newWorld(t, namespaces.Options{})
	for what, edit := range map[string]func(*namespaces.Options){
		"no namespace": func(o *namespaces.Options) { o.Namespace = "" },
		"no client":    func(o *namespaces.Options) { o.Client = nil },
		"no reader":    func(o *namespaces.Options) { o.Live = nil },
		"no roots":     func(o *namespaces.Options) { o.PublicRoots = nil },
		"no CA":        func(o *namespaces.Options) { o.ControlCA = nil },
		"no events":    func(o *namespaces.Options) { o.Events = nil },
		"no log":       func(o *namespaces.Options) { o.Logger = nil },
	} {
		o := w.r.Options
		edit(&o)
		if _, err := namespaces.New(o); err == nil {
			t.Error(what)
		}
	}
}

func TestOnlyOurOwnCertificatesAreGenerations(t *testing.T) {
	foreign := &cmv1.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: "mine", Labels: map[string]string{
		"app.kubernetes.io/managed-by": "aegrail-control", "aegrail.io/namespace": "support", "aegrail.io/ca-generation": "7",
	}}}
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil), foreign)
	w.settle("support")
	w.wants("support", "True Ready generation 1")
	if !slices.Contains(strings.Fields(w.log.String()), "certificate=mine") {
		t.Errorf("not said: %s", w.log)
	}
}
