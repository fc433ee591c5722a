package podca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	cmapiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// What is kept on a CertificateRequest.
const (
	labelPodUID          = "aegrail.io/pod-uid"
	labelNamespace       = "aegrail.io/namespace"
	labelManagedBy       = "app.kubernetes.io/managed-by"
	managedBy            = "aegrail-control"
	annotationPod        = "aegrail.io/pod"
	annotationTemplate   = "aegrail.io/ca-template"
	annotationRestarts   = "aegrail.io/engine-restarts"
	namePrefix           = "aegrail-pod-"
	reasonOneLive        = "one_live_ca"
	reasonIssuer         = "issuer_refused"
	retryFailed          = 15 * time.Second // between requests that an issuer refuses
	pollFirst, pollAfter = 50 * time.Millisecond, 500 * time.Millisecond
)

// Sign returns the intermediate for a request that is exactly t, the template
// of the policy that is in force for the pod. Pod comes from Authenticate. The
// same request has the same answer as long as it is the pod's last one.
//
// An error is a *link.Refusal, or says that the API server or cert-manager is
// away.
func (s *Signer) Sign(ctx context.Context, who link.Pod, t link.Template, csrDER []byte) (made link.Intermediate, err error) {
	ask, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	pod, err := s.living(ask, s.claim(who))
	if err != nil {
		return made, err
	}
	now, err := s.identify(pod)
	switch {
	case err != nil:
		return made, err
	case now.Gateway != who.Gateway || now.Namespace != who.Namespace:
		return made, about(pod, link.Denied, "changed_meanwhile", "the pod is no longer what it was when the call began; call again")
	case who.CAGeneration < 1:
		return made, link.Refuse(link.Unavailable, "no_ca", "the namespace %s has no certificate authority yet; its condition aegrail.io/CAReady says why", who.Namespace)
	}
	if err := link.CheckRequest(csrDER, t); err != nil {
		return made, err
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return made, fmt.Errorf("reading a request that was checked: %w", err)
	}
	request, again, err := s.request(ask, pod, who, t, csr)
	if err != nil {
		return made, err
	}
	if request, err = s.issued(ctx, request); err != nil {
		return made, err
	}
	roots, err := s.Roots(ctx, who.Namespace, who.CAGeneration)
	if err != nil {
		return made, fmt.Errorf("reading the root of %s: %w", who.Namespace, err)
	}
	chain, err := checkChain(request.Status.Certificate, request.Status.CA, csr, t, roots, s.Now())
	if err != nil {
		return made, link.Refuse(link.Unavailable, "bad_chain", "issuer %s: %v", request.Spec.IssuerRef.Name, err)
	}
	for _, c := range chain {
		made.Chain = append(made.Chain, c.Raw)
	}
	made.RenewAfter = renewAfter(chain)
	s.Recorder.issued(pod, t, made, again)
	return made, nil
}

// request returns the CertificateRequest for csr: the pod's last one if that
// is it, else the next one if the pod may have another.
func (s *Signer) request(ctx context.Context, pod *corev1.Pod, who link.Pod, t link.Template, csr *x509.CertificateRequest) (_ *cmv1.CertificateRequest, again bool, err error) {
	last, n, err := s.last(ctx, who.UID)
	if err != nil {
		return nil, false, err
	}
	wanted := s.newRequest(pod, who, t, csr, n+1)
	if last != nil {
		failed := failure(last)
		switch {
		case same(last, wanted) && failed == nil:
			return last, true, nil
		case failed != nil && s.Now().Sub(last.CreationTimestamp.Time) < retryFailed:
			return nil, false, failed
		}
		if r := s.mayFollow(last, wanted); failed == nil && r != nil {
			return nil, false, r
		}
	}
	err = s.Client.Create(ctx, wanted)
	if apierrors.IsAlreadyExists(err) {
		// Another replica, or another call, was faster. If it was for this very
		// request, its answer is ours.
		other := &cmv1.CertificateRequest{}
		if err := s.Live.Get(ctx, client.ObjectKeyFromObject(wanted), other); err != nil {
			return nil, false, fmt.Errorf("reading a certificate request: %w", err)
		}
		if !same(other, wanted) {
			return nil, false, oneLive(other)
		}
		return other, true, nil
	}
	if meta.IsNoMatchError(err) {
		return nil, false, fmt.Errorf("requesting a certificate: cert-manager is not installed: %w", err)
	}
	if err != nil {
		return nil, false, fmt.Errorf("requesting a certificate: %w", err)
	}
	return wanted, false, nil
}

// last finds the pod's request with the highest number, which is 0 for none.
func (s *Signer) last(ctx context.Context, uid string) (*cmv1.CertificateRequest, int, error) {
	var list cmv1.CertificateRequestList
	err := s.Live.List(ctx, &list, client.InNamespace(s.Namespace), client.MatchingLabels{labelPodUID: uid, labelManagedBy: managedBy})
	if err != nil {
		return nil, 0, fmt.Errorf("listing the certificate requests of a pod: %w", err)
	}
	var last *cmv1.CertificateRequest
	highest := 0
	for i := range list.Items {
		if n := number(list.Items[i].Name); n > highest {
			last, highest = &list.Items[i], n
		}
	}
	return last, highest, nil
}

// number is n of the name aegrail-pod-<uid>-<n>, 0 if it is another name.
func number(name string) int {
	rest, ok := strings.CutPrefix(name, namePrefix)
	n, err := strconv.Atoi(rest[strings.LastIndexByte(rest, '-')+1:])
	if !ok || err != nil {
		return 0
	}
	return n
}

func (s *Signer) newRequest(pod *corev1.Pod, who link.Pod, t link.Template, csr *x509.CertificateRequest, n int) *cmv1.CertificateRequest {
	return &cmv1.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: namePrefix + who.UID + "-" + strconv.Itoa(n),
			Labels: map[string]string{labelManagedBy: managedBy, labelPodUID: who.UID, labelNamespace: pod.Namespace}, // where Sweep looks for the pod
			Annotations: map[string]string{
				annotationPod: who.Name, inject.AnnotationCAGeneration: strconv.Itoa(who.CAGeneration),
				annotationTemplate: fingerprint(t), annotationRestarts: strconv.Itoa(engineRestarts(pod, who)),
			},
		},
		Spec: cmv1.CertificateRequestSpec{
			Request:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}),
			IssuerRef: cmmeta.IssuerReference{Group: cmv1.SchemeGroupVersion.Group, Kind: cmv1.IssuerKind, Name: s.Issuer(who.Namespace, who.CAGeneration)},
			Duration:  &metav1.Duration{Duration: Life},
			IsCA:      true,
			Usages:    []cmv1.KeyUsage{cmv1.UsageCertSign, cmv1.UsageCRLSign, cmv1.UsageServerAuth},
		},
	}
}

// engineRestarts tells one start of the engine from the next. Kubelet reports
// it a moment late: until then a new engine is told to come again.
func engineRestarts(pod *corev1.Pod, who link.Pod) int {
	name := inject.ContainerEngine
	if who.Gateway {
		name = gatewayContainer
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return int(list[i].RestartCount)
			}
		}
	}
	return 0
}

// same reports that both ask one issuer for one certificate.
func same(a, b *cmv1.CertificateRequest) bool {
	return string(a.Spec.Request) == string(b.Spec.Request) && a.Spec.IssuerRef == b.Spec.IssuerRef && a.Spec.IsCA && b.Spec.IsCA
}

// mayFollow says why no other request may come after last yet.
func (s *Signer) mayFollow(last, next *cmv1.CertificateRequest) *link.Refusal {
	age := s.Now().Sub(last.CreationTimestamp.Time)
	switch {
	case last.Annotations[annotationTemplate] != next.Annotations[annotationTemplate],
		last.Spec.IssuerRef != next.Spec.IssuerRef,
		last.Annotations[annotationRestarts] != next.Annotations[annotationRestarts]:
		return nil
	case len(last.Status.Certificate) == 0 && age > IssueWait+askWait:
		return nil // nobody waits for it any more, and only the last one is handed out
	case age > lifeIssued(last)/5*3:
		// The engine renews at two thirds, or up to a twentieth of that before. Until
		// then a request for another key is not its own.
		return nil
	}
	return oneLive(last)
}

// lifeIssued is how long what was issued can be used, Life at most.
func lifeIssued(r *cmv1.CertificateRequest) time.Duration {
	own, err := parseChain(r.Status.Certificate)
	above, errAbove := parseChain(r.Status.CA)
	if err != nil || errAbove != nil || len(own) == 0 {
		return Life
	}
	return min(Life, lifeOf(append(own, above...)))
}

func oneLive(last *cmv1.CertificateRequest) *link.Refusal {
	return link.Refuse(link.TooMany, reasonOneLive, "the pod has a certificate authority for another key since %s, and may have the next one when three fifths of that are over or its engine was started anew",
		last.CreationTimestamp.UTC().Format(time.RFC3339))
}

// failure says why cert-manager will not sign a request; nil while it may.
func failure(r *cmv1.CertificateRequest) *link.Refusal {
	no := func(c *cmv1.CertificateRequestCondition) *link.Refusal {
		return link.Refuse(link.Unavailable, reasonIssuer, "issuer %s: %s: %s", r.Spec.IssuerRef.Name, c.Reason, c.Message)
	}
	for _, kind := range []cmv1.CertificateRequestConditionType{cmv1.CertificateRequestConditionDenied, cmv1.CertificateRequestConditionInvalidRequest} {
		if c := cmapiutil.GetCertificateRequestCondition(r, kind); c != nil && c.Status == cmmeta.ConditionTrue {
			return no(c)
		}
	}
	c := cmapiutil.GetCertificateRequestCondition(r, cmv1.CertificateRequestConditionReady)
	if c != nil && c.Status == cmmeta.ConditionFalse && (c.Reason == cmv1.CertificateRequestReasonFailed || c.Reason == cmv1.CertificateRequestReasonDenied) {
		return no(c)
	}
	return nil
}

// issued waits until cert-manager has signed a request.
func (s *Signer) issued(ctx context.Context, r *cmv1.CertificateRequest) (*cmv1.CertificateRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, IssueWait)
	defer cancel()
	name := types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
	backoff := wait.Backoff{Duration: pollFirst, Factor: 1.5, Cap: pollAfter, Steps: 1 << 20}
	for {
		if failed := failure(r); failed != nil {
			return nil, failed
		}
		c := cmapiutil.GetCertificateRequestCondition(r, cmv1.CertificateRequestConditionReady)
		if c != nil && c.Status == cmmeta.ConditionTrue && len(r.Status.Certificate) > 0 {
			return r, nil
		}
		timer := time.NewTimer(backoff.Step())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, waited(r, c, ctx.Err())
		case <-timer.C:
		}
		next := &cmv1.CertificateRequest{}
		err := s.Live.Get(ctx, name, next)
		if err != nil && ctx.Err() != nil {
			return nil, waited(r, c, ctx.Err())
		}
		if err != nil {
			return nil, fmt.Errorf("waiting for the certificate request %s: %w", r.Name, err)
		}
		r = next
	}
}

// waited says what cert-manager waits for, as far as it does.
func waited(r *cmv1.CertificateRequest, c *cmv1.CertificateRequestCondition, err error) error {
	state := "cert-manager has not looked at it"
	switch {
	case c != nil:
		state = c.Reason + ": " + c.Message
	case len(r.Status.Conditions) > 0:
		state = r.Status.Conditions[len(r.Status.Conditions)-1].Message
	}
	return errors.Join(fmt.Errorf("the certificate request %s was not signed in %s: %s", r.Name, IssueWait, state), err)
}
