package podca

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
	"github.com/arpitcoder/aegrail-engine/internal/link"
)

// What the chart gives a gateway's pods.
const (
	gatewayAccount   = "aegrail-gateway-" // and the namespace that it serves
	labelGatewayFor  = "aegrail.io/gateway-for"
	gatewayContainer = "gateway"
)

// fieldPodIP is what the API server selects pods by. It is a pod's first
// address; one that a pod has besides in the other family finds nobody.
const fieldPodIP = "status.podIP"

// gateway says who a living pod is, if it is a gateway. The zero Pod is of one
// that does not claim to be; it is refused unless it was injected.
func (s *Signer) gateway(pod *corev1.Pod) (link.Pod, error) {
	if pod.Namespace != s.Namespace {
		return link.Pod{}, nil // whatever it calls itself
	}
	account, label := serviceAccountOf(pod), pod.Labels[labelGatewayFor]
	serves, named := strings.CutPrefix(account, gatewayAccount)
	if !named && label == "" {
		return link.Pod{}, nil
	}
	has := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == gatewayContainer })
	if !named || serves == "" || serves != label || serves == s.Namespace || !has {
		return link.Pod{}, about(pod, link.Denied, "not_a_gateway", "a gateway for NS has the service account %sNS, the label %s=NS and a container %s; this pod has the account %q and the label %q",
			gatewayAccount, labelGatewayFor, gatewayContainer, account, label)
	}
	// As the chart names the Service: the account's name in control's namespace.
	return link.Pod{Namespace: serves, Name: pod.Name, UID: string(pod.UID), Gateway: true, Host: account + "." + s.Namespace + ".svc"}, nil
}

// claim is what the token said of a pod that was authenticated.
func (s *Signer) claim(who link.Pod) link.Pod {
	if !who.Gateway {
		return who
	}
	return link.Pod{Namespace: s.Namespace, Name: who.Name, UID: who.UID, ServiceAccount: gatewayAccount + who.Namespace}
}

// Review says whose a connection to a gateway is: a living pod of the namespace
// that it serves. Gateway comes from Authenticate. An error is a *link.Refusal,
// or says that the API server could not be asked.
func (s *Signer) Review(ctx context.Context, gateway link.Pod, who link.Caller) (link.Pod, error) {
	if !gateway.Gateway || gateway.Namespace == "" {
		return link.Pod{}, link.Refuse(link.Denied, "not_a_gateway", "whose a connection is, is told to gateways alone")
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var pod *corev1.Pod
	var err error
	if who.Token != "" {
		pod, err = s.byToken(ctx, gateway.Namespace, who.Token)
	} else {
		pod, err = s.byAddress(ctx, gateway.Namespace, who.Address)
	}
	if err != nil {
		return link.Pod{}, err
	}
	found := podOf(pod)
	s.Recorder.reviewed(gateway, found)
	return found, nil
}

// byToken finds the pod of a namespace that a caller's token is bound to.
func (s *Signer) byToken(ctx context.Context, namespace, token string) (*corev1.Pod, error) {
	claimed, err := s.review(ctx, token, GatewayAudience)
	if err != nil {
		return nil, err
	}
	if claimed.Namespace != namespace {
		return nil, link.Refuse(link.Denied, "another_namespace", "the token is of a pod of another namespace than %s, which this gateway serves; use the gateway of its own", namespace)
	}
	pod, err := s.bound(ctx, claimed)
	if err == nil && !drains(pod) {
		err = ending(pod)
	}
	if err != nil {
		return nil, err
	}
	return pod, nil
}

// byAddress finds the one pod of a namespace that has an address for itself.
// One on its node's network shares it with whatever else is there. One that is
// being deleted may have lost it to another already.
func (s *Signer) byAddress(ctx context.Context, namespace string, addr netip.Addr) (*corev1.Pod, error) {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return nil, link.Refuse(link.Invalid, "bad_caller", "want the token of a caller, or else its address")
	}
	var list corev1.PodList
	if err := s.Live.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{fieldPodIP: addr.String()}); err != nil {
		return nil, fmt.Errorf("finding the pod of %s with the address %s: %w", namespace, addr, err)
	}
	var found []*corev1.Pod
	for i := range list.Items {
		pod := &list.Items[i]
		// A pod that has ended keeps the address in its status, and another has it.
		if at, err := netip.ParseAddr(pod.Status.PodIP); err == nil && at.Unmap() == addr && pod.Namespace == namespace && !inject.Over(pod) {
			found = append(found, pod)
		}
	}
	const token = "; bring a token for the audience " + GatewayAudience
	switch {
	case len(found) == 0:
		return nil, link.Refuse(link.Denied, "unknown_address", "no living pod of %s has the address %s%s", namespace, addr, token)
	case slices.ContainsFunc(found, func(pod *corev1.Pod) bool { return pod.Spec.HostNetwork }):
		return nil, link.Refuse(link.Denied, "host_network", "the address %s is a node's, which does not tell whose the connection is%s", addr, token)
	case len(found) > 1:
		return nil, link.Refuse(link.Denied, "ambiguous_address", "%d pods of %s have the address %s%s", len(found), namespace, addr, token)
	}
	return found[0], ending(found[0])
}
