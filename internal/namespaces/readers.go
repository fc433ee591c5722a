package namespaces

import (
	"context"
	"fmt"
	"slices"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

const (
	// annotationPublished, on a generation's Certificate, is when its root was in
	// the bundle for the first time.
	annotationPublished = "aegrail.io/ca-published"

	// annotationSigning, on the bundle, is the generation that gateways' authorities are of.
	annotationSigning = "aegrail.io/gateway-ca-generation"

	// settling is how long after a change of the bundle a pod may still begin with
	// the one before: kubelet hears of the change by a watch, and clocks differ.
	settling = time.Minute

	readersPage = 500 // pods that are read at once
)

// readers are the pods that have a namespace's bundle and no engine of their
// own: a gateway's agents. Of each it is when it was made, which only the API
// server writes; a container that was started anew may have read more since.
type readers []time.Time

// readers reads them live. It is asked for while there is more than one
// generation, or the last is to go.
func (r *Reconciler) readers(ctx context.Context, namespace string) (out readers, err error) {
	for next := ""; ; {
		var pods corev1.PodList
		if err := r.Live.List(ctx, &pods, client.InNamespace(namespace), client.Limit(readersPage), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("listing the pods of %s, to see which have the bundle: %w", namespace, err)
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			if !inject.Marked(p) && !inject.Over(p) && hasBundle(&p.Spec) {
				out = append(out, p.CreationTimestamp.Time)
			}
		}
		if next = pods.Continue; next == "" {
			return out, nil
		}
	}
}

// since is when the oldest of them was made, or now where there is none.
func (r readers) since(now time.Time) time.Time {
	if len(r) == 0 {
		return now
	}
	return slices.MinFunc(r, time.Time.Compare)
}

// hasBundle reports that a container can read the bundle, as a file or a variable.
func hasBundle(spec *corev1.PodSpec) bool {
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.ConfigMap != nil && v.ConfigMap.Name == inject.BundleConfigMap {
			return true
		}
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ConfigMap != nil && s.ConfigMap.Name == inject.BundleConfigMap
		}) {
			return true
		}
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if slices.ContainsFunc(list[i].EnvFrom, func(e corev1.EnvFromSource) bool {
				return e.ConfigMapRef != nil && e.ConfigMapRef.Name == inject.BundleConfigMap
			}) || slices.ContainsFunc(list[i].Env, func(e corev1.EnvVar) bool {
				return e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil && e.ValueFrom.ConfigMapKeyRef.Name == inject.BundleConfigMap
			}) {
				return true
			}
		}
	}
	return false
}

// trusted is the newest generation of ready, of which the oldest comes first,
// that was in the bundle when something began; the oldest where none was for sure.
func trusted(ready []*generation, began time.Time) *generation {
	for _, g := range slices.Backward(ready) {
		if at, err := time.Parse(time.RFC3339, g.cert.Annotations[annotationPublished]); err == nil && !began.Before(at.Add(settling)) {
			return g
		}
	}
	return ready[0]
}

// announce notes of generations that they are in the bundle.
func (r *Reconciler) announce(ctx context.Context, ready []*generation) error {
	for _, g := range ready {
		if g.cert.Annotations[annotationPublished] != "" {
			continue
		}
		g.cert.Annotations = with(g.cert.Annotations, map[string]string{annotationPublished: r.Now().UTC().Format(time.RFC3339)})
		if err := r.Client.Update(ctx, g.cert); err != nil {
			return fmt.Errorf("noting that the root of %s is published: %w", g.cert.Name, err)
		}
	}
	return nil
}

// signedFor counts the authorities of gateways by the generation that signed
// them. Package podca deletes the requests of pods that have ended, and those
// that a newer one has replaced.
func (r *Reconciler) signedFor(ctx context.Context, namespace string, used map[int]int) error {
	var list cmv1.CertificateRequestList
	err := r.Live.List(ctx, &list, client.InNamespace(r.Namespace), client.MatchingLabels{labelManagedBy: managedBy, labelNamespace: r.Namespace})
	if err != nil {
		return fmt.Errorf("listing the authorities of gateways: %w", err)
	}
	for i := range list.Items {
		n, ok := inject.Generation(list.Items[i].Annotations[inject.AnnotationCAGeneration])
		if ok && list.Items[i].Spec.IssuerRef.Name == Name(namespace, n) {
			used[n]++
		}
	}
	return nil
}
