package podca

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// maxToken bounds a token; those of service accounts have about 1 KiB.
const maxToken = 16 << 10 // 16 KiB

// Extra fields of a user that the API server fills from a pod-bound token.
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

// Labels and annotations of injected pods that are read here. What they mean
// is decided by injection.
const (
	labelInjected        = "aegrail.io/injected"
	labelIdentity        = "aegrail.io/identity"
	annotationGeneration = "aegrail.io/ca-generation"
	engineContainer      = "aegrail-engine"
)

// Authenticate returns whose token it is. An error is a *link.Refusal, or says
// that the API server could not be asked.
func (s *Signer) Authenticate(ctx context.Context, token string) (link.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	claimed, err := s.review(ctx, token)
	if err != nil {
		return link.Pod{}, err
	}
	live, err := s.pod(ctx, claimed)
	if err != nil {
		return link.Pod{}, err
	}
	return podOf(live)
}

// review asks the API server whose token it is.
func (s *Signer) review(ctx context.Context, token string) (link.Pod, error) {
	const reason = "not_authenticated"
	if token == "" || len(token) > maxToken || strings.ContainsAny(token, " \t\r\n") {
		return link.Pod{}, link.Refuse(link.Unauthenticated, reason, "there is no token of at most %d bytes", maxToken)
	}
	r := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}}}
	if err := s.Client.Create(ctx, r); err != nil {
		return link.Pod{}, fmt.Errorf("having a token reviewed: %w", err)
	}
	user := &r.Status.User
	pod := link.Pod{Name: only(user.Extra[extraPodName]), UID: only(user.Extra[extraPodUID])}
	var ok bool
	pod.Namespace, pod.ServiceAccount, ok = serviceAccount(user.Username)
	switch {
	case !r.Status.Authenticated:
		return link.Pod{}, link.Refuse(link.Unauthenticated, reason, "the API server does not take the token for the audience %q: %s", Audience, r.Status.Error)
	case !slices.Contains(r.Status.Audiences, Audience):
		// An authenticator that knows no audiences leaves the list empty.
		return link.Pod{}, link.Refuse(link.Unauthenticated, "wrong_audience", "the token is for %q, not for %q; use the one of the volume aegrail-token", r.Status.Audiences, Audience)
	case !ok:
		return link.Pod{}, link.Refuse(link.Unauthenticated, "not_a_pod", "the token is of %q, which is no service account", user.Username)
	case pod.Name == "" || pod.UID == "":
		return link.Pod{}, link.Refuse(link.Unauthenticated, "not_a_pod", "the token of %s/%s is not bound to a pod", pod.Namespace, pod.ServiceAccount)
	}
	return pod, nil
}

// pod reads the pod that a token is bound to, live, and checks that it is that
// pod, that it runs, and that it is as injection left it.
func (s *Signer) pod(ctx context.Context, claimed link.Pod) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := s.Live.Get(ctx, types.NamespacedName{Namespace: claimed.Namespace, Name: claimed.Name}, pod)
	switch {
	case apierrors.IsNotFound(err):
		return nil, link.Refuse(link.Denied, "pod_gone", "there is no pod %s/%s", claimed.Namespace, claimed.Name)
	case err != nil:
		return nil, fmt.Errorf("reading the pod %s/%s: %w", claimed.Namespace, claimed.Name, err)
	}
	switch {
	case string(pod.UID) != claimed.UID:
		return nil, about(pod, link.Denied, "pod_uid", "the pod %s/%s has another UID than the token's; the token is of a pod before it", claimed.Namespace, claimed.Name)
	case pod.DeletionTimestamp != nil:
		return nil, about(pod, link.Denied, "pod_ending", "the pod is being deleted")
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return nil, about(pod, link.Denied, "pod_ending", "the pod has ended (%s)", pod.Status.Phase)
	case claimed.ServiceAccount != serviceAccountOf(pod):
		return nil, about(pod, link.Denied, "service_account", "the token is of the service account %q, the pod runs as %q", claimed.ServiceAccount, serviceAccountOf(pod))
	case pod.Labels[labelInjected] != "true":
		return nil, about(pod, link.Denied, "not_injected", "the pod has no label %s=true, so it was not injected by us", labelInjected)
	}
	if err := s.Injected(pod); err != nil {
		return nil, about(pod, link.Denied, "not_injected", "the pod is not as injection left it: %v", err)
	}
	if _, err := podOf(pod); err != nil {
		return nil, err
	}
	return pod, nil
}

func podOf(pod *corev1.Pod) (link.Pod, error) {
	text := pod.Annotations[annotationGeneration]
	generation, err := strconv.Atoi(text)
	if err != nil || generation < 1 {
		return link.Pod{}, about(pod, link.Denied, "not_injected", "the pod's annotation %s is %q, not the number of a root", annotationGeneration, text)
	}
	return link.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: serviceAccountOf(pod),
		Claimed: pod.Labels[labelIdentity], CAGeneration: generation,
	}, nil
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
