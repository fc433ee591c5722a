package namespaces_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/namespaces"
)

const control = "aegrail-system"

// ca is a certificate that can sign, with its key.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial = big.NewInt(1000)

// newCA signs a CA for key, itself if above is nil.
func newCA(t *testing.T, name string, key *ecdsa.PrivateKey, above *ca, edits ...func(*x509.Certificate)) *ca {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	serial = new(big.Int).Add(serial, big.NewInt(1))
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: -1,
	}
	for _, edit := range edits {
		edit(tmpl)
	}
	parent, signer := tmpl, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{cert, key}
}

func encode(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// secretData is a Secret as cert-manager fills it.
func secretData(t *testing.T, signer *ca, chain []byte, root []byte) map[string][]byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(signer.key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"tls.crt": chain, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), "ca.crt": root}
}

// world is a cluster with the namespace "support" and a cert-manager that issues when told.
type world struct {
	t      *testing.T
	client client.WithWatch
	r      *namespaces.Reconciler
	events *events.FakeRecorder
	log    *bytes.Buffer
	public *ca
	link   *ca

	mu      sync.Mutex
	now     time.Time
	missing bool             // cert-manager is not installed
	fail    map[string]error // :: "verb Kind" or "verb Kind name" → what the API server says
	writes  []string         // "verb Kind name" of what was changed
	states  map[string]namespaces.State
}

func namespace(name string, labels, annotations map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}}
}

func injected() map[string]string { return map[string]string{inject.LabelInject: "enabled"} }

func newWorld(t *testing.T, o namespaces.Options, objects ...client.Object) *world {
	t.Helper()
	w := &world{
		t: t, events: events.NewFakeRecorder(100), log: &bytes.Buffer{}, now: time.Now(), fail: map[string]error{}, states: map[string]namespaces.State{},
		public: newCA(t, "public root", nil, nil), link: newCA(t, "control CA", nil, nil),
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), cmv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&corev1.Namespace{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, o ...client.GetOption) error {
				if err := w.meet("get", obj, key.Name); err != nil {
					return err
				}
				return c.Get(ctx, key, obj, o...)
			},
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
				if err := w.meet("list", list, ""); err != nil {
					return err
				}
				return c.List(ctx, list, o...)
			},
			Create: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.CreateOption) error {
				if err := w.meet("create", obj, obj.GetName()); err != nil {
					return err
				}
				obj.SetCreationTimestamp(metav1.NewTime(w.clock()))
				return c.Create(ctx, obj, o...)
			},
			Update: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.UpdateOption) error {
				if err := w.meet("update", obj, obj.GetName()); err != nil {
					return err
				}
				return c.Update(ctx, obj, o...)
			},
			Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.DeleteOption) error {
				if err := w.meet("delete", obj, obj.GetName()); err != nil {
					return err
				}
				return c.Delete(ctx, obj, o...)
			},
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, obj client.Object, patch client.Patch, o ...client.SubResourcePatchOption) error {
				if err := w.meet("patch", obj, obj.GetName()); err != nil {
					return err
				}
				return c.SubResource(sub).Patch(ctx, obj, patch, o...)
			},
		}).Build()
	o.Namespace, o.Client, o.Live = control, w.client, w.client
	o.Events, o.Logger = w.events, slog.New(slog.NewTextHandler(w.log, nil))
	o.PublicRoots = func() ([]byte, error) { return encode(w.public.cert), nil }
	o.ControlCA = func() ([]byte, error) { return encode(w.link.cert), nil }
	o.Report = func(ns string, s namespaces.State) { w.states[ns] = s }
	o.Now = w.clock
	r, err := namespaces.New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.r = r
	return w
}

// meet plays the API server before it answers.
func (w *world) meet(verb string, obj runtime.Object, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	kind := strings.TrimPrefix(fmt.Sprintf("%T", obj), "*v1.")
	if w.missing && (strings.HasPrefix(kind, "Certificate") || strings.HasPrefix(kind, "Issuer")) {
		return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "cert-manager.io", Kind: kind}}
	}
	if err := cmp.Or(w.fail[verb+" "+kind], w.fail[verb+" "+kind+" "+name]); err != nil {
		return err
	}
	if verb != "get" && verb != "list" {
		w.writes = append(w.writes, verb+" "+kind+" "+name)
	}
	return nil
}

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) pass(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

// changed returns what was written since it was last asked.
func (w *world) changed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.writes
	w.writes = nil
	return out
}

// reconcile looks at a namespace once.
func (w *world) reconcile(name string) reconcile.Result {
	w.t.Helper()
	result, err := w.r.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: name}})
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

// issue fills the Secret of every Certificate that has none, as cert-manager
// does for a self-signed issuer.
func (w *world) issue() {
	w.t.Helper()
	var list cmv1.CertificateList
	if err := w.client.List(w.t.Context(), &list, client.InNamespace(control)); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range list.Items {
		if c.Spec.SecretName == "" {
			continue
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: control, Name: c.Spec.SecretName, Labels: c.Spec.SecretTemplate.Labels}}
		if err := w.client.Get(w.t.Context(), client.ObjectKeyFromObject(secret), &corev1.Secret{}); err == nil {
			continue
		}
		root := newCA(w.t, c.Spec.CommonName, nil, nil)
		secret.Data = secretData(w.t, root, encode(root.cert), encode(root.cert))
		if err := w.client.Create(w.t.Context(), secret); err != nil {
			w.t.Fatal(err)
		}
	}
}

// settle reconciles and issues until the namespace has what it wants.
func (w *world) settle(name string) {
	w.t.Helper()
	w.reconcile(name)
	w.issue()
	w.reconcile(name)
}

func (w *world) get(obj client.Object, namespace, name string) bool {
	w.t.Helper()
	err := w.client.Get(w.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, obj)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return err == nil
}

// root is the certificate in a generation's Secret.
func (w *world) root(name string) *x509.Certificate {
	w.t.Helper()
	secret := &corev1.Secret{}
	if !w.get(secret, control, name) {
		w.t.Fatalf("no Secret %s", name)
	}
	block, _ := pem.Decode(secret.Data["tls.crt"])
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

func (w *world) bundle(name string) *corev1.ConfigMap {
	w.t.Helper()
	out := &corev1.ConfigMap{}
	if !w.get(out, name, inject.BundleConfigMap) {
		return nil
	}
	return out
}

// condition is the namespace's, "" if it has none.
func (w *world) condition(name string) string {
	w.t.Helper()
	ns := &corev1.Namespace{}
	w.get(ns, "", name)
	for _, c := range ns.Status.Conditions {
		if c.Type == inject.ConditionReady {
			return string(c.Status) + " " + c.Reason + " " + c.Message
		}
	}
	return ""
}

// wants holds the condition to a beginning.
func (w *world) wants(name, prefix string) {
	w.t.Helper()
	if got := w.condition(name); !strings.HasPrefix(got, prefix) || prefix == "" && got != "" {
		w.t.Errorf("condition %q, want %q", got, prefix)
	}
}

// told returns the events since it was last asked.
func (w *world) told() string {
	var out []string
	for {
		select {
		case e := <-w.events.Events:
			out = append(out, e)
		default:
			return strings.Join(out, "\n")
		}
	}
}

func (w *world) edit(obj client.Object, namespace, name string, change func()) {
	w.t.Helper()
	if !w.get(obj, namespace, name) {
		w.t.Fatalf("there is no %s", name)
	}
	change()
	if err := w.client.Update(w.t.Context(), obj); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delete(obj client.Object, namespace, name string) {
	w.t.Helper()
	obj.SetNamespace(namespace)
	obj.SetName(name)
	if err := w.client.Delete(w.t.Context(), obj); err != nil && !apierrors.IsNotFound(err) {
		w.t.Fatal(err)
	}
}

func agent(name string, generation int, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "support", Name: name, Labels: map[string]string{inject.LabelInjected: "true"}, Annotations: map[string]string{inject.AnnotationCAGeneration: strconv.Itoa(generation)}},
		Status:     corev1.PodStatus{Phase: phase},
	}
}

func parseKey(t *testing.T, text []byte) *ecdsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}
