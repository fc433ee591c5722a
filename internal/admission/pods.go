package admission

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/arpitcoder/aegrail-engine/internal/inject"
)

// notEnforced is what every pod that is not held says when it is made.
const notEnforced = "aegrail: NOT ENFORCED: enforcement is advisory; an agent that ignores the proxy variables goes where it wants"

const (
	ephemeral  = "ephemeralcontainers"
	resize     = "resize"
	enableWith = "label the namespace: kubectl label namespace %s " + inject.LabelInject + "=" + inject.InjectNamespace
)

// mutatePod injects.
func (o *Options) mutatePod(ctx context.Context, req *admissionv1.AdmissionRequest) (verdict, error) {
	switch {
	case is(req, "pods", "", admissionv1.Create):
		pod, err := decodePod(req.Object.Raw)
		if err != nil {
			return verdict{}, err
		}
		c, err := o.config(ctx, req.Namespace, pod)
		if err != nil {
			return verdict{}, err
		}
		out, err := inject.Pod(pod, c)
		if err != nil {
			return verdict{}, err
		}
		v, err := patched(pod, out)
		if c.Enforcement == inject.Advisory {
			v.warnings = []string{notEnforced}
		}
		return v, err
	case is(req, "pods", ephemeral, admissionv1.Update):
		before, pod, err := decodeUpdate(req)
		if err != nil {
			return verdict{}, err
		}
		if !inject.Marked(before) {
			return verdict{}, nil // it has no engine to be held by: it ran before its namespace was labelled
		}
		pod = withEphemeral(before, pod)
		out, err := inject.Ephemeral(pod)
		if err != nil {
			return verdict{}, err
		}
		return patched(pod, out)
	default:
		return verdict{}, notUnderstood(req)
	}
}

// validatePod has the last word on a pod.
func (o *Options) validatePod(ctx context.Context, req *admissionv1.AdmissionRequest) (verdict, error) {
	switch {
	case is(req, "pods", "", admissionv1.Create):
		pod, err := decodePod(req.Object.Raw)
		if err != nil {
			return verdict{}, err
		}
		return verdict{}, o.validateNew(ctx, req.Namespace, pod)
	case is(req, "pods", "", admissionv1.Update), is(req, "pods", ephemeral, admissionv1.Update), is(req, "pods", resize, admissionv1.Update):
		before, after, err := decodeUpdate(req)
		if err != nil {
			return verdict{}, err
		}
		return verdict{}, validateUpdate(req, before, after)
	case is(req, "pods", "exec", admissionv1.Connect), is(req, "pods", "attach", admissionv1.Connect):
		return verdict{}, validateConnect(req)
	default:
		return verdict{}, notUnderstood(req)
	}
}

// validateNew wants pod injected, unless it is here only because it says that it is.
func (o *Options) validateNew(ctx context.Context, namespace string, pod *corev1.Pod) error {
	// The webhooks send pods that ask, pods of labelled namespaces, and pods that bear our marks. The last are told from the second by
	// the label alone; a cache that has not seen the label yet refuses them, for as long as it is behind.
	if !asks(pod) && inject.CheckUnmarked(pod) != nil {
		ns, err := o.Namespaces.Namespace(ctx, namespace)
		if err != nil {
			return fmt.Errorf("looking up namespace %s: %w", namespace, err)
		}
		if ns.Inject == "" {
			return inject.CheckUnmarked(pod)
		}
	}
	c, err := o.config(ctx, namespace, pod)
	if err != nil {
		return err
	}
	return inject.Check(pod, c)
}

func validateUpdate(req *admissionv1.AdmissionRequest, before, after *corev1.Pod) error {
	switch {
	case !inject.Marked(before):
		// A pod that runs without an engine may go on, and may not begin to say that it has one.
		return inject.CheckUnmarked(&corev1.Pod{ObjectMeta: after.ObjectMeta})
	case req.SubResource == ephemeral:
		return inject.CheckEphemeral(withEphemeral(before, after))
	case req.SubResource == resize:
		return inject.CheckResize(before, after)
	default:
		return inject.CheckUpdate(before, after)
	}
}

// config is what is injected into pods of namespace, if pod may ask for it.
func (o *Options) config(ctx context.Context, namespace string, pod *corev1.Pod) (inject.Config, error) {
	c := o.Config
	for _, m := range []map[string]string{pod.Labels, pod.Annotations} {
		if value, set := m[inject.LabelInject]; set && value != inject.InjectPod {
			return c, refusef("%s: %q; write %q or leave it out: a pod cannot leave what its namespace asks for", inject.LabelInject, value, inject.InjectPod)
		}
	}
	ns, err := o.Namespaces.Namespace(ctx, namespace)
	if err != nil {
		return c, fmt.Errorf("looking up namespace %s: %w", namespace, err)
	}
	switch {
	case ns.Inject != "" && ns.Inject != inject.InjectNamespace:
		return c, refusef("namespace %s is labelled %s=%s, which means nothing, so that no pod is made in it; "+enableWith+" --overwrite, or remove the label", namespace, inject.LabelInject, ns.Inject, namespace)
	case ns.Bundle && (ns.CAGeneration > 0 || c.ControlAddress == ""):
	case ns.Inject == "":
		return c, refusef("the pod asks for aegrail-engine by %s, and namespace %s has no CA; "+enableWith, inject.LabelInject, namespace, namespace)
	default:
		return c, refusef("namespace %s has no CA yet%s; see kubectl describe namespace %s, and try again", namespace, because(ns.NotReady), namespace)
	}
	c.PodSecurity, c.CAGeneration = ns.PodSecurity, ns.CAGeneration
	return c, nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// asks reports that pod itself asks for injection, in whatever words.
func asks(pod *corev1.Pod) bool {
	_, label := pod.Labels[inject.LabelInject]
	_, annotation := pod.Annotations[inject.LabelInject]
	return label || annotation
}

// is reports that req is about what is named.
func is(req *admissionv1.AdmissionRequest, resource, subresource string, operation admissionv1.Operation) bool {
	r := req.Resource
	return r.Group == "" && r.Version == "v1" && r.Resource == resource && req.SubResource == subresource && req.Operation == operation
}

func notUnderstood(req *admissionv1.AdmissionRequest) error {
	name := req.Resource.Resource
	if req.SubResource != "" {
		name += "/" + req.SubResource
	}
	return fmt.Errorf("%s of %s %s is nothing that this webhook answers; its configuration is not the one of this version", req.Operation, req.Resource.Version, name)
}

// decodePod reads a pod as the API server writes it. What a newer API server knows and this version does not is not seen, and left as it is.
func decodePod(raw []byte) (*corev1.Pod, error) {
	if err := fits(raw); err != nil {
		return nil, err
	}
	pod := new(corev1.Pod)
	if err := kubejson.Unmarshal(raw, pod); err != nil {
		return nil, fmt.Errorf("reading the pod: %w", err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("reading the pod: it is %q %q", pod.APIVersion, pod.Kind)
	}
	return pod, nil
}

func decodeUpdate(req *admissionv1.AdmissionRequest) (before, after *corev1.Pod, err error) {
	if before, err = decodePod(req.OldObject.Raw); err != nil {
		return nil, nil, fmt.Errorf("as it was: %w", err)
	}
	after, err = decodePod(req.Object.Raw)
	return before, after, err
}

// withEphemeral is before with the ephemeral containers of after. Of such an update the API server takes nothing else, so that the rest of after
// is only what somebody says.
func withEphemeral(before, after *corev1.Pod) *corev1.Pod {
	out := before.DeepCopy()
	out.Spec.EphemeralContainers = after.Spec.EphemeralContainers
	return out
}

// patched is the verdict that makes after of before.
func patched(before, after *corev1.Pod) (verdict, error) {
	patch, err := patchOf(before, after)
	return verdict{patch: patch}, err
}
