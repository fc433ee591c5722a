package podca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	cmapiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/identity"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// bot is the principal of the policies here.
var bot = identity.Principal{Namespace: "support", ServiceAccount: "support-bot"}

// compile makes the set of a policy for bot: hosts, a comma apart, in one rule.
func compile(t testing.TB, hosts string) *policy.Set {
	t.Helper()
	return compileRules(t, fmt.Sprintf("  rules: [{hosts: [%s]}]\n", quoted(hosts)))
}

func quoted(hosts string) string {
	return `"` + strings.Join(strings.Split(hosts, ","), `", "`) + `"`
}

func compileRules(t testing.TB, rules string) *policy.Set {
	t.Helper()
	text := "apiVersion: aegrail.io/v1alpha1\nkind: AgentPolicy\nmetadata: {name: support-bot}\nspec:\n  agents: {namespaces: [support]}\n" + rules
	docs, err := v1alpha1.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	set, _, err := policy.Compile(docs, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// constraint is that of the policy that allows hosts.
func constraint(t testing.TB, hosts string) podca.Constraint {
	t.Helper()
	c, err := podca.Constraints(compile(t, hosts), bot)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newKey makes a key of a curve.
func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCSR is the request that an engine makes of a template, changed by edits.
func newCSR(t testing.TB, key crypto.Signer, tmpl link.Template, edits ...func(*x509.CertificateRequest)) []byte {
	t.Helper()
	csr := &x509.CertificateRequest{RawSubject: tmpl.RawSubject}
	if !tmpl.Unconstrained {
		csr.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: tmpl.NameConstraints}}
	}
	for _, edit := range edits {
		edit(csr)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, csr, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// root is a namespace's root, as cert-manager's Certificate makes it.
type root struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newRoot(t testing.TB, name string) root {
	t.Helper()
	key := newKey(t, elliptic.P256())
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return root{cert, key}
}

// issue does to a request what cert-manager's CA issuer does, with its code.
// Edits change the certificate before it is signed.
func (r root) issue(request *cmv1.CertificateRequest, edits ...func(*x509.Certificate)) error {
	tmpl, err := pki.CertificateTemplateFromCertificateRequest(request)
	if err != nil {
		return err
	}
	for _, edit := range edits {
		edit(tmpl)
	}
	bundle, err := pki.SignCSRTemplate([]*x509.Certificate{r.cert}, r.key, tmpl)
	if err != nil {
		return err
	}
	request.Status.Certificate, request.Status.CA = bundle.ChainPEM, bundle.CAPEM
	cmapiutil.SetCertificateRequestCondition(request, cmv1.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmv1.CertificateRequestReasonIssued, "signed")
	return nil
}

// world is a cluster with one injected pod, whose engine holds the token "good".
type world struct {
	t        *testing.T
	client   client.WithWatch
	signer   *podca.Signer
	root     root
	pod      link.Pod
	events   *events.FakeRecorder
	recorder *podca.Recorder
	log      *bytes.Buffer
	created  chan string // names of certificate requests, in order

	mu      sync.Mutex
	now     time.Time
	reviews map[string]authenticationv1.TokenReviewStatus
	issue   func(*cmv1.CertificateRequest) error // nil: nobody signs
	counts  map[string]int

	rootsFault      error // of reading the namespace's root
	generation      int   // in the namespace's bundle
	generationFault error
}

func tokenOf(audience, account, pod, uid string) authenticationv1.TokenReviewStatus {
	return tokenIn("support", audience, account, pod, uid)
}

func tokenIn(namespace, audience, account, pod, uid string) authenticationv1.TokenReviewStatus {
	s := authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{audience}, User: authenticationv1.UserInfo{Username: "system:serviceaccount:" + namespace + ":" + account}}
	if pod != "" {
		s.User.Extra = map[string]authenticationv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {pod}, "authentication.kubernetes.io/pod-uid": {uid},
		}
	}
	return s
}

const uid = "11111111-2222-3333-4444-555555555555"

func injectedPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "support", Name: "bot-1", UID: uid,
			Labels:      map[string]string{"aegrail.io/injected": "true", "aegrail.io/identity": "helpful"},
			Annotations: map[string]string{"aegrail.io/ca-generation": "1"},
		},
		Spec:   corev1.PodSpec{ServiceAccountName: "support-bot"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func newWorld(t *testing.T, others ...client.Object) *world {
	t.Helper()
	w := &world{
		t: t, root: newRoot(t, "support root"), now: time.Now(), counts: map[string]int{}, created: make(chan string, 100),
		pod:    link.Pod{Namespace: "support", Name: "bot-1", UID: uid, ServiceAccount: "support-bot", Claimed: "helpful", CAGeneration: 1},
		events: events.NewFakeRecorder(100), log: &bytes.Buffer{},
		reviews: map[string]authenticationv1.TokenReviewStatus{"good": tokenOf(podca.Audience, "support-bot", "bot-1", uid)},
	}
	w.issue = func(r *cmv1.CertificateRequest) error { return w.root.issue(r) }
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), cmv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(others, injectedPod())...).
		WithIndex(&corev1.Pod{}, "status.podIP", func(obj client.Object) []string { return []string{obj.(*corev1.Pod).Status.PodIP} }).
		WithInterceptorFuncs(interceptor.Funcs{Create: w.create}).Build()
	recorder, err := podca.NewRecorder("aegrail-system", w.events, slog.New(slog.NewTextHandler(w.log, nil)),
		func(about podca.About, outcome string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.counts[string(about)+" "+outcome]++
		})
	if err != nil {
		t.Fatal(err)
	}
	w.recorder = recorder
	signer, err := podca.NewSigner(podca.Options{
		Namespace: "aegrail-system", Client: w.client, Live: w.client,
		Injected: func(pod *corev1.Pod) error {
			if pod.Annotations["tampered"] != "" {
				return errors.New("container aegrail-engine has another image")
			}
			return nil
		},
		Issuer: func(namespace string, generation int) string {
			return fmt.Sprintf("aegrail-ca-%s-%d", namespace, generation)
		},
		Generation: func(context.Context, string) (int, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.generation, w.generationFault
		},
		Roots: func(context.Context, string, int) ([]*x509.Certificate, error) {
			return []*x509.Certificate{w.root.cert}, w.rootsFault
		},
		Recorder: w.recorder,
		Now:      func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.signer = signer
	return w
}

// create plays the API server's token reviewer and cert-manager.
func (w *world) create(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.CreateOption) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch obj := obj.(type) {
	case *authenticationv1.TokenReview:
		if len(obj.Spec.Audiences) != 1 || obj.Spec.Audiences[0] != podca.Audience && obj.Spec.Audiences[0] != podca.GatewayAudience {
			return fmt.Errorf("reviewed for the audiences %q", obj.Spec.Audiences)
		}
		obj.Status = w.reviews[obj.Spec.Token]
		return nil
	case *cmv1.CertificateRequest:
		stored := obj.DeepCopy()
		stored.CreationTimestamp = metav1.NewTime(w.now)
		if w.issue != nil {
			if err := w.issue(stored); err != nil {
				return err
			}
		}
		if err := c.Create(ctx, stored, o...); err != nil {
			return err
		}
		w.created <- stored.Name
		return nil
	default:
		return c.Create(ctx, obj, o...)
	}
}

func (w *world) pass(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

// count is how often an answer to an engine was counted, callers those about a gateway's callers.
func (w *world) count(outcome string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts["engine "+outcome]
}

func (w *world) callers(outcome string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts["caller "+outcome]
}

// editPod changes the pod as it is in the API server.
func (w *world) editPod(edit func(*corev1.Pod)) {
	w.t.Helper()
	w.editPodOf("support", "bot-1", edit)
}

func (w *world) editPodOf(namespace, name string, edit func(*corev1.Pod)) {
	w.t.Helper()
	pod := &corev1.Pod{}
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, pod); err != nil {
		w.t.Fatal(err)
	}
	edit(pod)
	status := pod.Status
	if err := w.client.Update(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
	pod.Status = status
	if err := w.client.Status().Update(w.t.Context(), pod); err != nil {
		w.t.Fatal(err)
	}
}

// template is that of the pod under a policy that allows hosts.
func (w *world) template(hosts string) link.Template {
	w.t.Helper()
	tmpl, err := podca.NewTemplate(w.pod, constraint(w.t, hosts))
	if err != nil {
		w.t.Fatal(err)
	}
	return tmpl
}

// refused holds a refusal to what must be true of all of them: it is one of that
// kind and reason, and once the link's server has told of it, log, counter and,
// for a pod that is there, its events say so.
func (w *world) refused(call link.Refused, kind link.Kind, reason string, event bool) {
	w.t.Helper()
	var r *link.Refusal
	if !errors.As(call.Err, &r) {
		w.t.Errorf("%v, want a refusal for %s", call.Err, reason)
		return
	}
	if r.Kind != kind || r.Reason != reason {
		w.t.Errorf("refused as %d for %s, want %d for %s", r.Kind, r, kind, reason)
	}
	w.recorder.Refused(call)
	counted, other, warning := w.count(reason), w.callers(reason), "Warning EngineRefused"
	if call.Call == "Review" && call.Pod.Gateway {
		counted, other, warning = other, counted, "Warning CallerRefused"
	}
	if counted == 0 || other > 0 {
		w.t.Errorf("%s was counted %d times, and %d times for something else", reason, counted, other)
	}
	if !strings.Contains(w.log.String(), "reason="+reason) {
		w.t.Errorf("%s is not in the log: %s", reason, w.log)
	}
	select {
	case got := <-w.events.Events:
		if !event || !strings.Contains(got, warning) || !strings.Contains(got, reason) {
			w.t.Errorf("event %q", got)
		}
	default:
		if event {
			w.t.Errorf("%s: no event on the pod", reason)
		}
	}
}

// refusedSign is refused for a pod that was authenticated.
func (w *world) refusedSign(err error, kind link.Kind, reason string) {
	w.t.Helper()
	w.refused(link.Refused{Call: "SignCA", Pod: w.pod, Err: err}, kind, reason, true)
}
