package namespaces

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// anyGeneration is the generation of a pod that does not say which it has.
const anyGeneration = 0

// inUse returns the generations that living injected pods of a namespace have.
func (r *Reconciler) inUse(ctx context.Context, namespace string) (map[int]int, error) {
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(namespace), client.HasLabels{inject.LabelInjected}); err != nil {
		return nil, fmt.Errorf("listing the injected pods of %s: %w", namespace, err)
	}
	used := map[int]int{}
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		n, err := strconv.Atoi(p.Annotations[inject.AnnotationCAGeneration])
		if err != nil || n < 1 {
			n = anyGeneration
		}
		used[n]++
	}
	return used, nil
}

// retire removes the generations before newest that no pod has any more. It
// returns when to look again.
func (r *Reconciler) retire(ctx context.Context, namespace string, list []*generation, newest int) (time.Duration, error) {
	again := resync
	if list[0].n >= newest {
		return again, nil
	}
	used, err := r.inUse(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for _, g := range list {
		switch {
		case g.n >= newest:
			continue
		case used[g.n] > 0 || used[anyGeneration] > 0:
			r.used(g.cert.Name)
			continue
		case !r.unused(g.cert.Name):
			again = RetireAfter
			continue
		}
		if err := r.delete(ctx, g.cert.Name); err != nil {
			return 0, err
		}
		again = pollIssuing // the bundle is to be without it
	}
	return again, nil
}

// delete removes what belongs to a generation. Its Certificate goes last, since
// it is by that that the rest is found again after a failure, and cert-manager
// would make the Secret anew as long as it is there.
func (r *Reconciler) delete(ctx context.Context, name string) error {
	at := metav1.ObjectMeta{Namespace: r.Namespace, Name: name}
	for _, obj := range []client.Object{&cmv1.Issuer{ObjectMeta: at}, &cmv1.Certificate{ObjectMeta: at}, &corev1.Secret{ObjectMeta: at}} {
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, obj)); err != nil {
			return fmt.Errorf("removing the CA %s: %w", name, err)
		}
	}
	r.used(name)
	r.Logger.Info("removed a CA that no pod uses any more", "ca", name)
	return nil
}

// remove takes everything back from a namespace that is not to have a CA, once
// no pod needs it. Gone says that the namespace itself is not there any more.
func (r *Reconciler) remove(ctx context.Context, ns *corev1.Namespace, gone bool) (reconcile.Result, error) {
	at := slices.IndexFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == ConditionReady })
	if at < 0 && !gone && !r.noted(ns.Name) {
		return reconcile.Result{}, nil // most namespaces: nothing was ever made for them
	}
	list, err := r.generations(ctx, ns.Name)
	if err != nil && !meta.IsNoMatchError(err) { // without cert-manager's kinds there are no objects of them
		return reconcile.Result{}, err
	}
	if len(list) == 0 && at < 0 {
		r.note(ns.Name, false)
		return reconcile.Result{}, nil
	}
	used, err := r.inUse(ctx, ns.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	pods := 0
	for _, n := range used {
		pods += n
	}
	if pods > 0 {
		r.used(ns.Name)
		message := fmt.Sprintf("the label is gone, and the CA stays for %d pods that were injected before", pods)
		return reconcile.Result{RequeueAfter: resync}, r.condition(ctx, ns, corev1.ConditionTrue, reasonLeaving, message)
	}
	if !r.unused(ns.Name) {
		return reconcile.Result{RequeueAfter: RetireAfter}, nil
	}
	for _, g := range list {
		if err := r.delete(ctx, g.cert.Name); err != nil {
			return reconcile.Result{}, err
		}
	}
	r.used(ns.Name)
	r.note(ns.Name, false)
	r.Report(ns.Name, Gone)
	if gone || ns.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: inject.BundleConfigMap}}
	err = client.IgnoreNotFound(r.Client.Delete(ctx, bundle))
	if at >= 0 {
		next := ns.DeepCopy()
		next.Status.Conditions = slices.Delete(next.Status.Conditions, at, at+1)
		err = errors.Join(err, client.IgnoreNotFound(r.Client.Status().Patch(ctx, next, client.StrategicMergeFrom(ns))))
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("removing the bundle of %s: %w", ns.Name, err)
	}
	r.Events.Eventf(ns, nil, corev1.EventTypeNormal, "CARemoved", "RemoveCA", "the namespace has no label and no injected pod; its certificate authority is removed")
	return reconcile.Result{}, nil
}
