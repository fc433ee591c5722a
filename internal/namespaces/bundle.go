package namespaces

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/certs"
	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// bundle is what the bundle of a namespace must be: the same bytes for the same
// certificates.
func (r *Reconciler) bundle(namespace string, ready []*generation, signing *generation) (*corev1.ConfigMap, error) {
	public, err := r.PublicRoots()
	if err != nil {
		return nil, fmt.Errorf("reading the public roots: %w", err)
	}
	control, err := r.ControlCA()
	if err != nil {
		return nil, fmt.Errorf("reading control's CA: %w", err)
	}
	if _, err := certs.Bundle(nil, control); err != nil {
		return nil, fmt.Errorf("reading control's CA: %w", err)
	}
	var own [][]byte
	for _, g := range ready {
		own = append(own, g.roots)
	}
	trust, err := certs.Bundle(public, own...)
	if err != nil {
		return nil, err
	}
	p12, err := trust.PKCS12(inject.BundlePassword)
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: inject.BundleConfigMap, Labels: map[string]string{labelManagedBy: managedBy},
			Annotations: map[string]string{
				inject.AnnotationCAGeneration: strconv.Itoa(ready[len(ready)-1].n), annotationSigning: strconv.Itoa(signing.n),
			},
		},
		Data:       map[string]string{inject.BundlePEM: string(trust.PEM()), inject.BundleControl: string(control)},
		BinaryData: map[string][]byte{inject.BundleP12: p12},
	}, nil
}

// Signing returns the generation that gateways' authorities are of: the newest
// that each pod trusts which has the bundle of the namespace; 0 for a namespace
// without one. A bundle has half a megabyte: give it a reader with a cache.
func Signing(ctx context.Context, reader client.Reader, namespace string) (int, error) {
	bundle := &corev1.ConfigMap{}
	err := reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: inject.BundleConfigMap}, bundle)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the ConfigMap %s of %s: %w", inject.BundleConfigMap, namespace, err)
	}
	text := bundle.Annotations[annotationSigning]
	n, ok := inject.Generation(text)
	if !ok {
		return 0, fmt.Errorf("the ConfigMap %s of %s says that gateways sign with generation %q: it begins with 1", inject.BundleConfigMap, namespace, text)
	}
	return n, nil
}

// publish makes the bundle what it must be.
func (r *Reconciler) publish(ctx context.Context, ns *corev1.Namespace, want *corev1.ConfigMap) error {
	have := &corev1.ConfigMap{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: want.Namespace, Name: want.Name}, have)
	switch {
	case apierrors.IsNotFound(err):
		if err := r.Client.Create(ctx, want); err != nil {
			return fmt.Errorf("publishing the bundle: %w", err)
		}
		r.Events.Eventf(ns, nil, corev1.EventTypeNormal, "BundlePublished", "PublishBundle", "the ConfigMap %s has generation %s", want.Name, want.Annotations[inject.AnnotationCAGeneration])
		return nil
	case err != nil:
		return fmt.Errorf("reading the bundle: %w", err)
	case sameBundle(have, want):
		return nil
	}
	if have.Immutable != nil && *have.Immutable {
		// Nobody can change it, we neither. Pods that have it mounted keep what they have.
		if err := r.Client.Delete(ctx, have, client.Preconditions{UID: &have.UID}); err != nil {
			return fmt.Errorf("replacing a bundle that was made immutable: %w", err)
		}
		if err := r.Client.Create(ctx, want); err != nil {
			return fmt.Errorf("publishing the bundle: %w", err)
		}
		return nil
	}
	next := have.DeepCopy()
	next.Data, next.BinaryData = want.Data, want.BinaryData
	next.Labels, next.Annotations = with(have.Labels, want.Labels), with(have.Annotations, want.Annotations)
	if err := r.Client.Update(ctx, next); err != nil {
		return fmt.Errorf("publishing the bundle: %w", err)
	}
	r.Events.Eventf(ns, nil, corev1.EventTypeNormal, "BundlePublished", "PublishBundle", "the ConfigMap %s has generation %s; it had other content", want.Name, want.Annotations[inject.AnnotationCAGeneration])
	return nil
}

func sameBundle(have, want *corev1.ConfigMap) bool {
	return equality.Semantic.DeepEqual(have.Data, want.Data) &&
		maps.EqualFunc(have.BinaryData, want.BinaryData, bytes.Equal) &&
		has(have.Labels, want.Labels) && has(have.Annotations, want.Annotations)
}

// has reports that all of part is in m.
func has(m, part map[string]string) bool {
	for k, v := range part {
		if m[k] != v {
			return false
		}
	}
	return true
}

// with is m with part in it.
func with(m, part map[string]string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, part)
	return out
}
