package podca_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

var errHoliday = errors.New("the API server is on holiday")

// broken is the world's signer before an API server that fails in one way.
func (w *world) broken(fail interceptor.Funcs) *podca.Signer {
	w.t.Helper()
	o := w.signer.Options
	c := interceptor.NewClient(w.client, fail)
	o.Client, o.Live = c, c
	s, err := podca.NewSigner(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// failing fails what is done to objects of one kind.
func failing[T any](verb string, err error) interceptor.Funcs {
	is := func(obj any) bool { _, ok := obj.(T); return ok }
	var f interceptor.Funcs
	switch verb {
	case "create":
		f.Create = func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.CreateOption) error {
			if is(obj) {
				return err
			}
			return c.Create(ctx, obj, o...)
		}
	case "get":
		f.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, o ...client.GetOption) error {
			if is(obj) {
				return err
			}
			return c.Get(ctx, key, obj, o...)
		}
	case "list":
		f.List = func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
			if is(list) {
				return err
			}
			return c.List(ctx, list, o...)
		}
	case "delete":
		f.Delete = func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.DeleteOption) error {
			if is(obj) {
				return err
			}
			return c.Delete(ctx, obj, o...)
		}
	}
	return f
}

// unavailable holds an error to saying that nothing was decided.
func unavailable(t *testing.T, what string, err error) {
	t.Helper()
	var r *link.Refusal
	if err == nil || errors.As(err, &r) {
		t.Errorf("%s: %v, want an error that is no refusal", what, err)
	}
}

func TestAnAPIServerThatIsAwayDecidesNothing(t *testing.T) {
	w := newWorld(t)
	tmpl := w.template("a.example")
	csr := newCSR(t, newKey(t, elliptic.P256()), tmpl)
	_, err := w.broken(failing[*authenticationv1.TokenReview]("create", errHoliday)).Authenticate(t.Context(), "good")
	unavailable(t, "token review", err)
	_, err = w.broken(failing[*corev1.Pod]("get", errHoliday)).Authenticate(t.Context(), "good")
	unavailable(t, "pod", err)
	for what, fail := range map[string]interceptor.Funcs{
		"pod": failing[*corev1.Pod]("get", errHoliday), "list": failing[*cmv1.CertificateRequestList]("list", errHoliday),
		"create": failing[*cmv1.CertificateRequest]("create", errHoliday),
		"kinds":  failing[*cmv1.CertificateRequest]("create", &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "CertificateRequest"}}),
		"wait":   failing[*cmv1.CertificateRequest]("get", errHoliday),
	} {
		w := newWorld(t)
		_, err := w.broken(fail).Sign(t.Context(), w.pod, tmpl, csr)
		unavailable(t, what, err)
		if what == "kinds" && !strings.Contains(err.Error(), "cert-manager is not installed") {
			t.Error(err)
		}
	}
}

func TestARootThatCannotBeReadDecidesNothing(t *testing.T) {
	w := newWorld(t)
	w.rootsFault = errHoliday
	_, err := w.sign(w.template("a.example"))
	unavailable(t, "roots", err)
}

func TestASweepThatFailsSaysSo(t *testing.T) {
	w := newWorld(t)
	w.mustSign(w.template("a.example"))
	w.editPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	w.pass(time.Hour)
	for what, fail := range map[string]interceptor.Funcs{
		"list": failing[*cmv1.CertificateRequestList]("list", errHoliday), "pod": failing[*corev1.Pod]("get", errHoliday),
		"delete": failing[*cmv1.CertificateRequest]("delete", errHoliday),
	} {
		if n, err := w.broken(fail).Sweep(t.Context()); !errors.Is(err, errHoliday) || n != 0 {
			t.Errorf("%s: swept %d, %v", what, n, err)
		}
	}
	kinds := &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "CertificateRequest"}}
	if n, err := w.broken(failing[*cmv1.CertificateRequestList]("list", kinds)).Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("without cert-manager: %d, %v", n, err)
	}
}

func TestRunSweepsAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	w.mustSign(w.template("a.example"))
	w.editPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	lists := 0
	s := w.broken(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
		if lists++; lists == 1 {
			return errHoliday
		}
		return c.List(ctx, list, o...)
	}})
	w.pass(time.Hour)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	if lists != 3 || !strings.Contains(w.log.String(), "on holiday") || !strings.Contains(w.log.String(), "deleted old certificate requests") {
		t.Errorf("looked %d times: %s", lists, w.log)
	}
}

// TestOfTwoReplicasThatAskTheSameBothGetTheAnswer: the engine called twice, and
// each call came to another replica, which both saw no request.
func TestOfTwoReplicasThatAskTheSameBothGetTheAnswer(t *testing.T) {
	w := newWorld(t)
	tmpl := w.template("a.example")
	csr := newCSR(t, newKey(t, elliptic.P256()), tmpl)
	first, err := w.signer.Sign(t.Context(), w.pod, tmpl, csr)
	if err != nil {
		t.Fatal(err)
	}
	blind := interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil }}
	again, err := w.broken(blind).Sign(t.Context(), w.pod, tmpl, csr)
	if err != nil || string(again.Chain[0]) != string(first.Chain[0]) {
		t.Errorf("another answer: %v", err)
	}
	<-w.events.Events
	_, err = w.broken(blind).Sign(t.Context(), w.pod, tmpl, newCSR(t, newKey(t, elliptic.P256()), tmpl))
	w.refusedSign(err, link.TooMany, "one_live_ca")
}

func TestAPodWithoutAServiceAccountIsTheDefaultOne(t *testing.T) {
	w := newWorld(t)
	w.editPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" })
	w.reviews["t"] = tokenOf(podca.Audience, "default", "bot-1", uid)
	pod, err := w.signer.Authenticate(t.Context(), "t")
	if err != nil || pod.ServiceAccount != "default" {
		t.Errorf("%+v, %v", pod, err)
	}
}
