package namespaces

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const reasonReleased = "InjectionReleased"

// report tells how a namespace is, and everybody if it was released.
func (r *Reconciler) report(ctx context.Context, ns *corev1.Namespace, status corev1.ConditionStatus) error {
	state := NotReady
	if status == corev1.ConditionTrue {
		state = Ready
	}
	pods, err := r.released(ctx, ns)
	if err != nil {
		return err
	}
	if pods > 0 {
		state = Released
	}
	r.Report(ns.Name, state)
	if r.lost(ns.Name, pods > 0) {
		r.Events.Eventf(ns, nil, corev1.EventTypeWarning, reasonReleased, "Inject", "the label %s is gone while %d pods live that it had injected; pods that start now have no engine, and nothing holds them", inject.LabelInject, pods)
		r.Logger.Warn("a namespace lost the label that injects its pods: what starts there now has no engine, and nothing holds it", "namespace", ns.Name, "injected", pods)
	}
	return nil
}

// released counts the pods of a namespace without the label that injects its
// pods, which yet were injected without having asked for it themselves: it had
// the label when they were made.
func (r *Reconciler) released(ctx context.Context, ns *corev1.Namespace) (int, error) {
	if ns.ResourceVersion == "" || ns.DeletionTimestamp != nil {
		return 0, nil // it is gone, or going
	}
	if _, has := ns.Labels[inject.LabelInject]; has {
		return 0, nil // any value but the right one lets no pod be made
	}
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(ns.Name), client.HasLabels{inject.LabelInjected}); err != nil {
		return 0, fmt.Errorf("listing the injected pods of %s: %w", ns.Name, err)
	}
	n := 0
	for i := range pods.Items {
		p := &pods.Items[i]
		if !inject.Over(p) && p.Labels[inject.LabelInject] != inject.InjectPod && p.Annotations[inject.LabelInject] != inject.InjectPod {
			n++
		}
	}
	return n, nil
}

// lost notes whether a namespace is released, and reports that this is news and so.
func (r *Reconciler) lost(namespace string, is bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.free[namespace]
	if is {
		r.free[namespace] = true
	} else {
		delete(r.free, namespace)
	}
	return is && !was
}
