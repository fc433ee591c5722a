package namespaces_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	cmapiutil "github.com/cert-manager/cert-manager/pkg/api/util"
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

func TestWhatAnIssuerReturnsForANamespaceIsChecked(t *testing.T) {
	company := newCA(t, "company root", nil, nil)
	for _, row := range []struct {
		what, want string
		data       func(*testing.T) map[string][]byte
	}{
		{"no CA", "not a CA", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"a CA that may not sign", "certSign", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"another key", "key mismatch", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company)
			return secretData(t, company, encode(c.cert), encode(company.cert))
		}},
		{"no room below", "leaves no room", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"no room above", "leaves no room", func(t *testing.T) map[string][]byte {
			tight := newCA(t, "tight root", nil, nil, func(c *x509.Certificate) { c.MaxPathLen = 1 })
			c := newCA(t, "x", nil, tight)
			return secretData(t, c, encode(c.cert), encode(tight.cert))
		}},
		{"no root", "no self-signed root", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company)
			return secretData(t, c, encode(c.cert), nil)
		}},
		{"for clients alone", "verify", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"expired", "expired", func(t *testing.T) map[string][]byte {
			c := newCA(t, "x", nil, company, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			return secretData(t, c, encode(c.cert), encode(company.cert))
		}},
		{"nothing", "", func(*testing.T) map[string][]byte { return nil }},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t, namespaces.Options{Issuer: &cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "company", Group: "cert-manager.io"}}, namespace("support", injected(), nil))
			w.reconcile("support")
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: "aegrail-ca-support-1"}, Data: row.data(t)}
			if err := w.client.Create(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			w.reconcile("support")
			w.wants("support", "False NotIssued")
			if got := w.condition("support"); !strings.Contains(got, row.want) {
				t.Errorf("condition %q, want %q", got, row.want)
			}
			if w.bundle("support") != nil {
				t.Error("and yet there is a bundle")
			}
			if _, err := namespaces.Roots(t.Context(), w.client, control, "support", 1, time.Now()); err == nil {
				t.Error("and yet it has roots")
			}
		})
	}
}

func TestAnIssuerOfTheCompanySignsTheCA(t *testing.T) {
	company := newCA(t, "company root", nil, nil)
	between := newCA(t, "company intermediate", nil, company)
	issuer := &cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "company", Group: "cert-manager.io"}
	w := newWorld(t, namespaces.Options{Issuer: issuer}, namespace("support", injected(), nil))
	w.reconcile("support")
	c := &cmv1.Certificate{}
	if !w.get(c, control, "aegrail-ca-support-1") || c.Spec.IssuerRef != *issuer || w.get(&cmv1.Issuer{}, control, "aegrail-roots") {
		t.Errorf("%+v", c.Spec.IssuerRef)
	}
	signed := newCA(t, "support", nil, between)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: c.Name}, Data: secretData(t, signed, encode(signed.cert, between.cert), encode(company.cert))}
	if err := w.client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.reconcile("support")
	w.wants("support", "True Ready")
	checkBundle(t, w, 1, company.cert)
	roots, err := namespaces.Roots(t.Context(), w.client, control, "support", 1, time.Now())
	if err != nil || len(roots) != 1 || !roots[0].Equal(company.cert) {
		t.Errorf("%v, %v", roots, err)
	}
}

func TestAnotherIssuerBeginsAGeneration(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.settle("support")
	w.r.Issuer = &cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "company", Group: "cert-manager.io"}
	w.settle("support")
	w.wants("support", "True Ready generation 2")
	c := &cmv1.Certificate{}
	if !w.get(c, control, "aegrail-ca-support-1") || c.Spec.IssuerRef.Name != "aegrail-roots" {
		t.Errorf("the first generation has another issuer: %+v", c.Spec.IssuerRef)
	}
}

func TestAnIssuerThatFailsIsNamed(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.reconcile("support")
	c := &cmv1.Certificate{}
	w.edit(c, control, "aegrail-ca-support-1", func() {
		cmapiutil.SetCertificateCondition(c, 1, cmv1.CertificateConditionIssuing, cmmeta.ConditionFalse, "Failed", "the vault is sealed")
	})
	w.reconcile("support")
	w.wants("support", "False NotIssued issuer Issuer/aegrail-roots did not sign the CA: the vault is sealed")
}

func TestACertManagerThatDoesNothingIsNotWaitedForInSilence(t *testing.T) {
	w := newWorld(t, namespaces.Options{}, namespace("support", injected(), nil))
	w.reconcile("support")
	w.pass(2 * time.Minute)
	w.reconcile("support")
	w.wants("support", "False NotIssued the certificate aegrail-ca-support-1 is not issued: cert-manager has not looked at it")
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
