package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// podSecurityLabel is the level that Pod Security enforces (k8s.io/pod-security-admission/api.EnforceLevelLabel).
const podSecurityLabel = "pod-security.kubernetes.io/enforce"

// Cluster looks namespaces up in a cluster. Give it a manager's client, which reads from a cache of namespaces and of the ConfigMaps
// named aegrail-ca-bundle.
func Cluster(reader client.Reader) Namespaces { return cluster{reader} }

type cluster struct{ reader client.Reader }

func (c cluster) Namespace(ctx context.Context, name string) (Namespace, error) {
	ns := new(corev1.Namespace)
	if err := c.reader.Get(ctx, types.NamespacedName{Name: name}, ns); err != nil {
		return Namespace{}, err
	}
	out := Namespace{Inject: ns.Labels[inject.LabelInject], PodSecurity: ns.Labels[podSecurityLabel]}
	if _, has := ns.Labels[inject.LabelInject]; has && out.Inject == "" {
		out.Inject = `""` // present and empty is not the same as absent
	}
	for _, condition := range ns.Status.Conditions {
		if condition.Type == inject.ConditionReady && condition.Status != corev1.ConditionTrue {
			out.NotReady = condition.Reason + ": " + condition.Message
		}
	}
	bundle := new(corev1.ConfigMap)
	switch err := c.reader.Get(ctx, types.NamespacedName{Namespace: name, Name: inject.BundleConfigMap}, bundle); {
	case apierrors.IsNotFound(err):
		return out, nil
	case err != nil:
		return Namespace{}, fmt.Errorf("its ConfigMap %s: %w", inject.BundleConfigMap, err)
	}
	out.Bundle = true
	if text, has := bundle.Annotations[inject.AnnotationCAGeneration]; has {
		generation, ok := inject.Generation(text)
		if !ok {
			return Namespace{}, fmt.Errorf("its ConfigMap %s says generation %q: it begins with 1", inject.BundleConfigMap, text)
		}
		out.CAGeneration = generation
	}
	return out, nil
}
