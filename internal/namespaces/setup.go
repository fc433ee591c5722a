package namespaces

import (
	"context"
	"errors"
	"fmt"
	"maps"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// workers is how many namespaces are made right at once.
const workers = 4

// Cached is what a manager's cache must hold, and no more: of pods those that
// are injected, without what is not looked at, and of ConfigMaps the bundles.
func Cached() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&corev1.Pod{}:       {Label: injectedPods(), Transform: slim},
		&corev1.ConfigMap{}: {Field: fields.OneTermEqualSelector(metav1.ObjectNameField, inject.BundleConfigMap)},
	}
}

func injectedPods() labels.Selector {
	return labels.SelectorFromSet(labels.Set{inject.LabelInjected: "true"})
}

// slim leaves of a pod what tells its generation, whether it lives, and whether it asked for injection itself.
func slim(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion, DeletionTimestamp: pod.DeletionTimestamp,
			Labels:      only(pod.Labels, inject.LabelInjected, inject.LabelInject),
			Annotations: only(pod.Annotations, inject.AnnotationCAGeneration, inject.LabelInject),
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}, nil
}

// only is what all has by these names.
func only(all map[string]string, names ...string) map[string]string {
	out := map[string]string{}
	for _, name := range names {
		if value, has := all[name]; has {
			out[name] = value
		}
	}
	return out
}

// Setup has a manager run the Reconciler, on one replica at a time.
func (r *Reconciler) Setup(mgr manager.Manager) error {
	byNamespace := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, obj client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: obj.GetNamespace()}}}
	})
	orphans := make(chan event.GenericEvent)
	err := builder.ControllerManagedBy(mgr).Named("namespaces").
		For(&corev1.Namespace{}, builder.WithPredicates(asked())).
		Watches(&corev1.Pod{}, byNamespace, builder.WithPredicates(ended())).
		Watches(&corev1.ConfigMap{}, byNamespace).
		WatchesRawSource(source.Channel(orphans, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("setting up the controller of namespaces: %w", err)
	}
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return r.findOrphans(ctx, orphans) }))
}

// asked passes what a namespace is asked for by, and not what we say of it.
func asked() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) ||
			e.ObjectOld.GetAnnotations()[AnnotationRotateRoot] != e.ObjectNew.GetAnnotations()[AnnotationRotateRoot] ||
			e.ObjectNew.GetDeletionTimestamp() != nil
	}}
}

// ended passes that a pod is gone or has ended: then a CA may be needed no more.
func ended() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, is := e.ObjectOld.(*corev1.Pod)
			after, are := e.ObjectNew.(*corev1.Pod)
			return is && are && before.Status.Phase != after.Status.Phase
		},
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// findOrphans has the namespaces looked at that went while nobody watched: there
// is no event for them, and only what was made for them tells of them.
func (r *Reconciler) findOrphans(ctx context.Context, found chan<- event.GenericEvent) error {
	ours, some := client.MatchingLabels{labelManagedBy: managedBy}, client.HasLabels{labelNamespace}
	var list cmv1.CertificateList
	err := r.Live.List(ctx, &list, client.InNamespace(r.Namespace), ours, some)
	if meta.IsNoMatchError(err) {
		err = nil
	}
	secrets, errSecrets := r.secrets(ctx, ours, some)
	if err = errors.Join(err, errSecrets); err != nil {
		r.Logger.Error("looking for the CAs of namespaces that are gone", "err", err)
	}
	names := map[string]bool{}
	for i := range list.Items {
		names[list.Items[i].Labels[labelNamespace]] = true
	}
	for i := range secrets {
		names[secrets[i].Labels[labelNamespace]] = true
	}
	for name := range names {
		r.note(name, true)
		select {
		case found <- event.GenericEvent{Object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}}:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
