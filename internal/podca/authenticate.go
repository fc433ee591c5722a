package podca

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// maxToken bounds a token; those of service accounts have about 1 KiB.
const maxToken = 16 << 10 // 16 KiB

// Extra fields of a user that the API server fills from a pod-bound token.
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

// Authenticate returns whose token it is. An error is a *link.Refusal, or says
// that the API server could not be asked.
func (s *Signer) Authenticate(ctx context.Context, token string) (link.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	claimed, err := s.review(ctx, token, Audience)
	if err != nil {
		return link.Pod{}, err
	}
	pod, err := s.bound(ctx, claimed)
	if err != nil {
		return link.Pod{}, err
	}
	who, err := s.identify(pod)
	if err == nil && !(who.Gateway && drains(pod)) {
		err = ending(pod)
	}
	if err != nil {
		return link.Pod{}, err
	}
	if !who.Gateway {
		return who, nil
	}
	if who.CAGeneration, err = s.Generation(ctx, who.Namespace); err != nil {
		return link.Pod{}, fmt.Errorf("reading which roots the agents of %s trust: %w", who.Namespace, err)
	}
	return who, nil
}

// review asks the API server whose token for an audience it is.
func (s *Signer) review(ctx context.Context, token, audience string) (link.Pod, error) {
	const reason = "not_authenticated"
	if token == "" || len(token) > maxToken || strings.ContainsAny(token, " \t\r\n") {
		return link.Pod{}, link.Refuse(link.Unauthenticated, reason, "there is no token of at most %d bytes", maxToken)
	}
	r := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}
	if err := s.Client.Create(ctx, r); err != nil {
		return link.Pod{}, fmt.Errorf("having a token reviewed: %w", err)
	}
	user := &r.Status.User
	pod := link.Pod{Name: only(user.Extra[extraPodName]), UID: only(user.Extra[extraPodUID])}
	var ok bool
	pod.Namespace, pod.ServiceAccount, ok = serviceAccount(user.Username)
	switch {
	case !r.Status.Authenticated:
		return link.Pod{}, link.Refuse(link.Unauthenticated, reason, "the API server does not take the token for the audience %q: %s", audience, r.Status.Error)
	case !slices.Contains(r.Status.Audiences, audience):
		// An authenticator that knows no audiences leaves the list empty.
		return link.Pod{}, link.Refuse(link.Unauthenticated, "wrong_audience", "the token is for %q, not for %q; use one of a projected volume for that audience", r.Status.Audiences, audience)
	case !ok:
		return link.Pod{}, link.Refuse(link.Unauthenticated, "not_a_pod", "the token is of %q, which is no service account", user.Username)
	case pod.Name == "" || pod.UID == "":
		return link.Pod{}, link.Refuse(link.Unauthenticated, "not_a_pod", "the token of %s/%s is not bound to a pod", pod.Namespace, pod.ServiceAccount)
	}
	return pod, nil
}

// identify says who a pod is: a gateway, or else a pod as injection left it.
func (s *Signer) identify(pod *corev1.Pod) (link.Pod, error) {
	who, err := s.gateway(pod)
	if err == nil && !who.Gateway {
		who, err = s.injected(pod)
	}
	return who, err
}

// drains reports that a pod is being deleted and runs yet. A gateway goes on until
// nobody comes any more and what is under way has ended, and needs to know whose
// that is; another authority it does not need. A caller that brings its token
// may end what it does.
func drains(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil && !inject.Over(pod) }

// living reads the pod that a token is bound to, live, and checks that it is that
// pod and that it runs.
func (s *Signer) living(ctx context.Context, claimed link.Pod) (*corev1.Pod, error) {
	pod, err := s.bound(ctx, claimed)
	if err == nil {
		err = ending(pod)
	}
	if err != nil {
		return nil, err
	}
	return pod, nil
}

// bound reads the pod that a token is bound to, live, and checks that it is that pod.
func (s *Signer) bound(ctx context.Context, claimed link.Pod) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := s.Live.Get(ctx, types.NamespacedName{Namespace: claimed.Namespace, Name: claimed.Name}, pod)
	switch {
	case apierrors.IsNotFound(err):
		return nil, link.Refuse(link.Denied, "pod_gone", "there is no pod %s/%s", claimed.Namespace, claimed.Name)
	case err != nil:
		return nil, fmt.Errorf("reading the pod %s/%s: %w", claimed.Namespace, claimed.Name, err)
	}
	if string(pod.UID) != claimed.UID {
		return nil, about(pod, link.Denied, "pod_uid", "the pod %s/%s has another UID than the token's; the token is of a pod before it", claimed.Namespace, claimed.Name)
	}
	if claimed.ServiceAccount != serviceAccountOf(pod) {
		return nil, about(pod, link.Denied, "service_account", "the token is of the service account %q, the pod runs as %q", claimed.ServiceAccount, serviceAccountOf(pod))
	}
	return pod, nil
}

// ending says why a pod does not count any more.
func ending(pod *corev1.Pod) error {
	switch {
	case pod.DeletionTimestamp != nil:
		return about(pod, link.Denied, "pod_ending", "the pod is being deleted")
	case inject.Over(pod):
		return about(pod, link.Denied, "pod_ending", "the pod has ended (%s)", pod.Status.Phase)
	}
	return nil
}

// injected says who a living pod is, if it is as injection left it.
func (s *Signer) injected(pod *corev1.Pod) (link.Pod, error) {
	if pod.Labels[inject.LabelInjected] != "true" {
		return link.Pod{}, about(pod, link.Denied, "not_injected", "the pod has no label %s=true, so it was not injected by us", inject.LabelInjected)
	}
	if err := s.Injected(pod); err != nil {
		return link.Pod{}, about(pod, link.Denied, "not_injected", "the pod is not as injection left it: %v", err)
	}
	text := pod.Annotations[inject.AnnotationCAGeneration]
	generation, ok := inject.Generation(text)
	if !ok {
		return link.Pod{}, about(pod, link.Denied, "not_injected", "the pod's annotation %s is %q, not the number of a root", inject.AnnotationCAGeneration, text)
	}
	who := podOf(pod)
	who.CAGeneration = generation
	return who, nil
}

func podOf(pod *corev1.Pod) link.Pod {
	return link.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: serviceAccountOf(pod), Claimed: pod.Labels[inject.LabelIdentity],
	}
}

func serviceAccountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

// serviceAccount splits "system:serviceaccount:<namespace>:<name>".
func serviceAccount(username string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(username, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// only is the value of a claim that has exactly one.
func only(values authenticationv1.ExtraValue) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}
