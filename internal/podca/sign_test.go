package podca_test

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cmapiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/link"
	"github.com/arpitcoder/aegrail-engine/internal/podca"
)

// sign asks with a new key, as an engine that was started anew does.
func (w *world) sign(tmpl link.Template) (link.Intermediate, error) {
	w.t.Helper()
	return w.signer.Sign(w.t.Context(), w.pod, tmpl, newCSR(w.t, newKey(w.t, elliptic.P256()), tmpl))
}

func (w *world) mustSign(tmpl link.Template) link.Intermediate {
	w.t.Helper()
	made, err := w.sign(tmpl)
	if err != nil {
		w.t.Fatal(err)
	}
	<-w.events.Events
	return made
}

func TestAuthenticateNamesThePod(t *testing.T) {
	w := newWorld(t)
	pod, err := w.signer.Authenticate(t.Context(), "good")
	if err != nil || pod != w.pod {
		t.Errorf("%+v, %v", pod, err)
	}
}

// TestASignedIntermediateServesAnEngine does what the engine does with it.
func TestASignedIntermediateServesAnEngine(t *testing.T) {
	for _, hosts := range []string{"api.example.com,*.b.example", "*", "10.0.0.0/8"} {
		w := newWorld(t)
		key, tmpl := newKey(t, elliptic.P384()), w.template(hosts)
		made, err := w.signer.Sign(t.Context(), w.pod, tmpl, newCSR(t, key, tmpl))
		if err != nil {
			t.Fatal(err)
		}
		if len(made.Chain) != 2 || string(made.Chain[1]) != string(w.root.cert.Raw) {
			t.Fatalf("%s: a chain of %d that does not end with the root", hosts, len(made.Chain))
		}
		ca, err := x509.ParseCertificate(made.Chain[0])
		if err != nil {
			t.Fatal(err)
		}
		authority, err := certs.New([]*x509.Certificate{ca}, key, []*x509.Certificate{w.root.cert}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if authority.Permits("evil.example") != (hosts == "*") {
			t.Errorf("%s: evil.example is permitted: %v", hosts, authority.Permits("evil.example"))
		}
		if left := time.Until(made.RenewAfter); left > podca.Life*2/3+time.Minute || left < podca.Life*2/3-time.Hour {
			t.Errorf("renewal after %s", left)
		}
		if event := <-w.events.Events; !strings.Contains(event, "Normal PodCAIssued") || strings.Contains(event, "without name constraints") != (hosts == "*") {
			t.Errorf("event %q", event)
		}
	}
}

func TestTheSameRequestHasTheSameAnswer(t *testing.T) {
	w := newWorld(t)
	tmpl := w.template("a.example")
	csr := newCSR(t, newKey(t, elliptic.P256()), tmpl)
	first, err := w.signer.Sign(t.Context(), w.pod, tmpl, csr)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.signer.Sign(t.Context(), w.pod, tmpl, csr)
	if err != nil || string(again.Chain[0]) != string(first.Chain[0]) {
		t.Errorf("another answer, %v", err)
	}
	if len(w.created) != 1 || w.count("signed") != 1 || w.count("again") != 1 {
		t.Errorf("%d requests, counted %v", len(w.created), w.counts)
	}
}

func TestAPodHasOneLivingAuthority(t *testing.T) {
	w := newWorld(t)
	tmpl := w.template("a.example")
	w.mustSign(tmpl)
	_, err := w.sign(tmpl)
	w.refusedSign(err, link.TooMany, "one_live_ca")

	w.pass(podca.Life/5*3 - time.Minute)
	_, err = w.sign(tmpl)
	w.refusedSign(err, link.TooMany, "one_live_ca")
	w.pass(2 * time.Minute)
	w.mustSign(tmpl) // renewal
	_, err = w.sign(tmpl)
	w.refusedSign(err, link.TooMany, "one_live_ca")

	w.mustSign(w.template("a.example,b.example")) // a policy that gains a host
	_, err = w.sign(w.template("a.example,b.example"))
	w.refusedSign(err, link.TooMany, "one_live_ca")

	w.editPod(func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "aegrail-engine", RestartCount: 1}}
	})
	w.mustSign(w.template("a.example,b.example")) // an engine that was started anew
	_, err = w.sign(w.template("a.example,b.example"))
	w.refusedSign(err, link.TooMany, "one_live_ca")
	for i := range 4 {
		if name, want := <-w.created, fmt.Sprintf("aegrail-pod-%s-%d", uid, i+1); name != want {
			t.Errorf("request %s, want %s", name, want)
		}
	}
}

// TestTheNextAuthorityIsThereWhenTheEngineRenews: an engine asks at two thirds of
// what its chain is valid, which an issuer may have made shorter, or a twentieth before.
func TestTheNextAuthorityIsThereWhenTheEngineRenews(t *testing.T) {
	for _, life := range []time.Duration{podca.Life, 6 * time.Hour} {
		w := newWorld(t)
		w.issue = func(r *cmv1.CertificateRequest) error {
			return edited(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(life) })(w, r)
		}
		tmpl := w.template("a.example")
		renews := time.Until(w.mustSign(tmpl).RenewAfter)
		w.pass(renews - renews/20 - life/20)
		_, err := w.sign(tmpl)
		w.refusedSign(err, link.TooMany, "one_live_ca")
		w.pass(life / 20)
		if _, err := w.sign(tmpl); err != nil {
			t.Errorf("a life of %s: at the renewal, %v", life, err)
		}
	}
}

// TestOfTwoReplicasOneIsFaster: both look before either has made a request.
func TestOfTwoReplicasOneIsFaster(t *testing.T) {
	w := newWorld(t)
	tmpl := w.template("a.example")
	const n = 8
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for range n {
		wg.Go(func() {
			_, err := w.sign(tmpl)
			errs <- err
		})
	}
	wg.Wait()
	signed := 0
	for range n {
		err := <-errs
		var r *link.Refusal
		switch {
		case err == nil:
			signed++
		case !errors.As(err, &r) || r.Reason != "one_live_ca":
			t.Error(err)
		}
	}
	if signed != 1 || len(w.created) != 1 {
		t.Errorf("%d signed, %d requests", signed, len(w.created))
	}
}

func TestWhatAnIssuerReturnsIsChecked(t *testing.T) {
	other := newRoot(t, "support root")
	for _, row := range []struct {
		what, want string
		issue      func(w *world, r *cmv1.CertificateRequest) error
	}{
		{"no CA", "not a CA", edited(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })},
		{"no certSign", "lacks certSign", edited(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })},
		{"another key", "another key", edited(func(c *x509.Certificate) { c.PublicKey = other.cert.PublicKey })},
		{"another subject", "subject is", edited(func(c *x509.Certificate) { c.RawSubject, c.Subject.CommonName = nil, "x" })},
		{"no constraints", "name constraints 0 times", edited(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.ExcludedIPRanges, c.PermittedDNSDomainsCritical = nil, nil, false
		})},
		{"wider constraints", "not those of the pod's policy", edited(func(c *x509.Certificate) { c.PermittedDNSDomains = append(c.PermittedDNSDomains, "evil.example") })},
		{"constraints to be ignored", "not critical", edited(func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false })},
		{"a year", "was asked for", edited(func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(1, 0, 0) })},
		{"expired", "is valid from", edited(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
		})},
		{"an issuer whose clock is ahead by hours", "is valid from", edited(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })},
		{"not for servers", "does not lead", edited(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
		{"another root of the same name", "does not lead", func(_ *world, r *cmv1.CertificateRequest) error { return other.issue(r) }},
		{"no certificate", "returned no certificate", func(w *world, r *cmv1.CertificateRequest) error {
			err := w.root.issue(r)
			r.Status.Certificate = []byte("-----BEGIN NOTHING-----\n-----END NOTHING-----\n")
			return err
		}},
		{"no DER", "cannot be read", func(w *world, r *cmv1.CertificateRequest) error {
			err := w.root.issue(r)
			r.Status.Certificate = []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
			return err
		}},
		{"a long chain", "more than 8", func(w *world, r *cmv1.CertificateRequest) error {
			err := w.root.issue(r)
			r.Status.CA = []byte(strings.Repeat(string(r.Status.CA), 9))
			return err
		}},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t)
			w.issue = func(r *cmv1.CertificateRequest) error { return row.issue(w, r) }
			made, err := w.sign(w.template("a.example"))
			w.refusedSign(err, link.Unavailable, "bad_chain")
			if err == nil || !strings.Contains(err.Error(), row.want) || len(made.Chain) > 0 {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

func edited(edit func(*x509.Certificate)) func(*world, *cmv1.CertificateRequest) error {
	return func(w *world, r *cmv1.CertificateRequest) error { return w.root.issue(r, edit) }
}

func TestAnIssuerThatConstrainsTheUnconstrainedIsRefused(t *testing.T) {
	w := newWorld(t)
	w.issue = func(r *cmv1.CertificateRequest) error {
		return w.root.issue(r, func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"a.example"}, true
		})
	}
	_, err := w.sign(w.template("*"))
	w.refusedSign(err, link.Unavailable, "bad_chain")
}

// TestAnIssuerThatRefusesIsAskedAgainLater: approval may come, or the issuer be repaired.
func TestAnIssuerThatRefusesIsAskedAgainLater(t *testing.T) {
	refuse := func(kind cmv1.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason string) func(*cmv1.CertificateRequest) error {
		return func(r *cmv1.CertificateRequest) error {
			cmapiutil.SetCertificateRequestCondition(r, kind, status, reason, "because")
			return nil
		}
	}
	for what, issue := range map[string]func(*cmv1.CertificateRequest) error{
		"denied":  refuse(cmv1.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy"),
		"invalid": refuse(cmv1.CertificateRequestConditionInvalidRequest, cmmeta.ConditionTrue, "invalid"),
		"failed":  refuse(cmv1.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmv1.CertificateRequestReasonFailed),
	} {
		w := newWorld(t)
		w.issue = issue
		tmpl := w.template("a.example")
		_, err := w.sign(tmpl)
		w.refusedSign(err, link.Unavailable, "issuer_refused")
		w.issue = func(r *cmv1.CertificateRequest) error { return w.root.issue(r) }
		_, err = w.sign(tmpl)
		w.refusedSign(err, link.Unavailable, "issuer_refused")
		if len(w.created) != 1 {
			t.Errorf("%s: asked %d times at once", what, len(w.created))
		}
		w.pass(time.Minute)
		w.mustSign(tmpl)
	}
}

func TestACertManagerThatDoesNotAnswerIsWaitedForUpToADeadline(t *testing.T) {
	w := newWorld(t)
	w.issue = nil
	tmpl := w.template("a.example")
	synctest.Test(t, func(t *testing.T) {
		_, err := w.signer.Sign(t.Context(), w.pod, tmpl, newCSR(t, newKey(t, elliptic.P256()), tmpl))
		w.recorder.Refused(link.Refused{Call: "SignCA", Pod: w.pod, Err: err})
		if w.count("unavailable") != 1 {
			t.Errorf("counted %v", w.counts)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "has not looked at it") {
			t.Errorf("%v", err)
		}
	})
	// Whoever comes while that one may still be waited for is told to come again.
	_, err := w.sign(tmpl)
	w.refusedSign(err, link.TooMany, "one_live_ca")
	w.pass(podca.IssueWait + time.Minute)
	w.issue = func(r *cmv1.CertificateRequest) error { return w.root.issue(r) }
	w.mustSign(tmpl)
}

func TestASignatureThatComesLaterIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.issue = nil
	tmpl := w.template("a.example")
	go func() {
		name := <-w.created
		r := &cmv1.CertificateRequest{}
		ctx := context.Background()
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: "aegrail-system", Name: name}, r); err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(w.root.issue(r), w.client.Update(ctx, r)); err != nil {
			t.Error(err)
		}
	}()
	w.mustSign(tmpl)
}

func TestSweepDeletesWhatNoPodNeeds(t *testing.T) {
	w := newWorld(t)
	w.mustSign(w.template("a.example"))
	w.mustSign(w.template("b.example"))
	sweep := func(want int) {
		t.Helper()
		if n, err := w.signer.Sweep(t.Context()); err != nil || n != want {
			t.Errorf("swept %d, want %d: %v", n, want, err)
		}
	}
	sweep(0)
	w.pass(time.Hour)
	sweep(1) // the one that was replaced
	sweep(0)
	w.editPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	sweep(1)

	w = newWorld(t)
	w.mustSign(w.template("a.example"))
	pod := injectedPod()
	if err := w.client.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	sweep(1)
}

func TestSweepTakesAPodOfTheSameNameForAnother(t *testing.T) {
	w := newWorld(t)
	w.mustSign(w.template("a.example"))
	w.editPod(func(p *corev1.Pod) { p.UID = "another" })
	w.pass(time.Hour)
	if n, err := w.signer.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("swept %d, %v", n, err)
	}
}

func TestASignerThatCouldNotSayNoIsNotMade(t *testing.T) {
	w := newWorld(t)
	for what, edit := range map[string]func(*podca.Options){
		"no namespace": func(o *podca.Options) { o.Namespace = "" },
		"no client":    func(o *podca.Options) { o.Client = nil },
		"no reader":    func(o *podca.Options) { o.Live = nil },
		"no check":     func(o *podca.Options) { o.Injected = nil },
		"no issuer":    func(o *podca.Options) { o.Issuer = nil },
		"no roots":     func(o *podca.Options) { o.Roots = nil },
		"no recorder":  func(o *podca.Options) { o.Recorder = nil },
	} {
		o := w.signer.Options
		edit(&o)
		if _, err := podca.NewSigner(o); err == nil {
			t.Error(what)
		}
	}
}

func TestTheRequestForCertManagerIsForADayAndACA(t *testing.T) {
	w := newWorld(t)
	var got *cmv1.CertificateRequest
	w.issue = func(r *cmv1.CertificateRequest) error { got = r.DeepCopy(); return w.root.issue(r) }
	w.mustSign(w.template("a.example"))
	if !got.Spec.IsCA || got.Spec.Duration.Duration != podca.Life || got.Namespace != "aegrail-system" || got.Spec.IssuerRef.Name != "aegrail-ca-support-1" || got.Spec.IssuerRef.Kind != "Issuer" {
		t.Errorf("%+v", got.Spec)
	}
	if got.Labels["aegrail.io/pod-uid"] != uid || got.Annotations["aegrail.io/pod"] != "bot-1" {
		t.Errorf("%v %v", got.Labels, got.Annotations)
	}
}

func TestAnIssuerWhoseClockIsALittleAheadIsTaken(t *testing.T) {
	w := newWorld(t)
	w.issue = func(r *cmv1.CertificateRequest) error {
		return w.root.issue(r, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(20 * time.Second) })
	}
	w.mustSign(w.template("a.example"))
}
