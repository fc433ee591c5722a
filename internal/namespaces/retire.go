package namespaces

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		if inject.Over(p) {
			continue
		}
		n, ok := inject.Generation(p.Annotations[inject.AnnotationCAGeneration])
		if !ok {
			n = anyGeneration
		}
		used[n]++
	}
	return used, nil
}

// leftovers are the generations of a namespace that have a Secret, and with it a
// key, but none of list's Certificates, the oldest first. Such a Secret is there
// where it could not be deleted, and where somebody deleted the Certificate.
func (r *Reconciler) leftovers(ctx context.Context, namespace string, list []*generation) ([]int, error) {
	secrets, err := r.secrets(ctx, client.MatchingLabels{labelManagedBy: managedBy, labelNamespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("listing the Secrets of the CAs of %s: %w", namespace, err)
	}
	var out []int
	for i := range secrets {
		n, ok := inject.Generation(secrets[i].Labels[labelGeneration])
		known := slices.ContainsFunc(list, func(g *generation) bool { return g.n == n })
		if ok && !known && secrets[i].Name == Name(namespace, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// secrets lists Secrets of control's namespace without what is in them.
func (r *Reconciler) secrets(ctx context.Context, having client.MatchingLabels, more ...client.ListOption) ([]metav1.PartialObjectMetadata, error) {
	var list metav1.PartialObjectMetadataList
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
	err := r.Live.List(ctx, &list, append(more, client.InNamespace(r.Namespace), having)...)
	return list.Items, err
}

// first is the number that a namespace without a Certificate begins with. A key
// that is left is used again for pods that trust it, and for nobody else.
func (r *Reconciler) first(ctx context.Context, namespace string) (int, error) {
	left, err := r.leftovers(ctx, namespace, nil)
	if err != nil || len(left) == 0 {
		return 1, err
	}
	last := left[len(left)-1]
	used, err := r.inUse(ctx, namespace)
	if err != nil || used[last] > 0 || used[anyGeneration] > 0 {
		return last, err
	}
	// When its root was published went with the Certificate. That a gateway signs
	// with it says that agents which have the bundle trust it.
	who, err := r.readers(ctx, namespace)
	if err == nil && len(who) > 0 {
		err = r.signedFor(ctx, namespace, used)
	}
	if err == nil && used[last] == 0 {
		last++
	}
	return last, err
}

// retire removes the generations before newest that no pod has any more: none
// that was injected, none of a gateway's agents or what gateways sign with, which
// the caller has counted in used, and no gateway. It returns when to look again.
func (r *Reconciler) retire(ctx context.Context, namespace string, list []*generation, newest int, used map[int]int) (time.Duration, error) {
	again := resync
	old, err := r.leftovers(ctx, namespace, list)
	if err != nil {
		return 0, err
	}
	for _, g := range list {
		old = append(old, g.n)
	}
	old = slices.DeleteFunc(old, func(n int) bool { return n >= newest })
	if len(old) == 0 {
		return again, nil
	}
	injected, err := r.inUse(ctx, namespace)
	if err == nil {
		err = r.signedFor(ctx, namespace, used)
	}
	if err != nil {
		return 0, err
	}
	for _, n := range old {
		name := Name(namespace, n)
		switch {
		case injected[n] > 0 || injected[anyGeneration] > 0 || used[n] > 0:
			r.used(name)
			continue
		case !r.unused(name):
			again = RetireAfter
			continue
		}
		if err := r.delete(ctx, name); err != nil {
			return 0, err
		}
		again = pollIssuing // the bundle is to be without it
	}
	return again, nil
}

// delete removes what belongs to a generation. The Secret goes last, since
// cert-manager would make it anew as long as its Certificate is there. After a
// failure each of the two is found again by its labels.
func (r *Reconciler) delete(ctx context.Context, name string) error {
	at := metav1.ObjectMeta{Namespace: r.Namespace, Name: name}
	for _, obj := range []client.Object{&cmv1.Issuer{ObjectMeta: at}, &cmv1.Certificate{ObjectMeta: at}, &corev1.Secret{ObjectMeta: at}} {
		err := client.IgnoreNotFound(r.Client.Delete(ctx, obj))
		if err != nil && !meta.IsNoMatchError(err) { // without cert-manager's kinds there are no objects of them
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
	at := conditionAt(ns)
	if at < 0 && !gone && !r.noted(ns.Name) {
		return reconcile.Result{}, nil // most namespaces: nothing was ever made for them
	}
	list, err := r.generations(ctx, ns.Name)
	if err != nil && !meta.IsNoMatchError(err) { // without cert-manager's kinds there are no objects of them
		return reconcile.Result{}, err
	}
	left, err := r.leftovers(ctx, ns.Name, list)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(list) == 0 && len(left) == 0 && at < 0 {
		r.note(ns.Name, false)
		return reconcile.Result{}, nil
	}
	pods, err := r.needing(ctx, ns.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if pods > 0 {
		r.used(ns.Name)
		message := fmt.Sprintf("the label is gone, and the CA stays for %d pods that were injected before or have its bundle", pods)
		return reconcile.Result{RequeueAfter: resync}, r.condition(ctx, ns, corev1.ConditionTrue, reasonLeaving, message)
	}
	if !r.unused(ns.Name) {
		return reconcile.Result{RequeueAfter: RetireAfter}, nil
	}
	for _, g := range list {
		left = append(left, g.n)
	}
	for _, n := range left {
		if err := r.delete(ctx, Name(ns.Name, n)); err != nil {
			return reconcile.Result{}, err
		}
	}
	r.used(ns.Name)
	r.note(ns.Name, false)
	r.Report(ns.Name, Gone)
	if gone || ns.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, r.clear(ctx, ns)
}

// needing counts the pods of a namespace that need its CA whatever its label says.
func (r *Reconciler) needing(ctx context.Context, namespace string) (int, error) {
	injected, err := r.inUse(ctx, namespace)
	if err != nil {
		return 0, err
	}
	who, err := r.readers(ctx, namespace)
	pods := len(who)
	for _, n := range injected {
		pods += n
	}
	return pods, err
}

// clear takes the bundle and the condition out of a namespace whose CA is removed.
func (r *Reconciler) clear(ctx context.Context, ns *corev1.Namespace) error {
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: inject.BundleConfigMap}}
	err := client.IgnoreNotFound(r.Client.Delete(ctx, bundle))
	if at := conditionAt(ns); at >= 0 {
		next := ns.DeepCopy()
		next.Status.Conditions = slices.Delete(next.Status.Conditions, at, at+1)
		err = errors.Join(err, client.IgnoreNotFound(r.Client.Status().Patch(ctx, next, client.StrategicMergeFrom(ns))))
	}
	if err != nil {
		return fmt.Errorf("removing the bundle of %s: %w", ns.Name, err)
	}
	r.Events.Eventf(ns, nil, corev1.EventTypeNormal, "CARemoved", "RemoveCA", "the namespace has no label, and no pod that was injected or has its bundle; its certificate authority is removed")
	return nil
}
