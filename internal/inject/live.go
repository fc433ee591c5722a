package inject

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CheckLive says whether a pod that runs holds its agents: nil, or Refusals. It is asked before the pod's engine is given
// anything. Unlike Check it does not compare with what would be injected now, since the image and the settings may be newer than
// the pod; it looks at what keeps the engine's token, passage and user apart from everything else. A pod that names no engine's user,
// or has none of our containers, is refused: the zero value of a Pod is.
func CheckLive(pod *corev1.Pod) error {
	var r Refusals
	const fix = "delete the pod; it is made anew and injected"
	uid, err := strconv.ParseInt(pod.Annotations[AnnotationEngineUID], 10, 64)
	if pod.Labels[LabelInjected] != "true" || err != nil || !engineUID(uid) {
		r.add(field.NewPath("metadata", "labels").Key(LabelInjected), "the pod is not injected", fix)
		return r.err()
	}
	engine := false
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		at := field.NewPath("spec", "initContainers").Key(c.Name)
		switch {
		case c.Name == ContainerEngine:
			engine = true
			if sc := c.SecurityContext; sc == nil || sc.RunAsUser == nil || *sc.RunAsUser != uid {
				r.add(at.Child("securityContext", "runAsUser"), "the engine does not run as the user that the pod names", fix)
			}
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				r.add(at.Child("restartPolicy"), "the engine is no sidecar", fix)
			}
		case c.Name == ContainerInit && engine:
			r.add(at, "it runs after the engine", fix)
		case !Ours(c.Name) && !engine:
			r.add(at, "it runs before the engine", fix)
		}
	}
	if !engine {
		r.add(field.NewPath("spec", "initContainers").Key(ContainerEngine), "it is not there", fix)
	}
	secrets := keySecrets(&pod.Spec, "")
	each(&pod.Spec, func(at *field.Path, have *corev1.Container) { r.container(at, have, secrets) })
	for _, v := range pod.Spec.Volumes {
		at := field.NewPath("spec", "volumes").Key(v.Name)
		if !OurVolume(v.Name) {
			r.source(at, v)
		}
		if v.Name != VolumeToken {
			r.tokens(at, v)
		}
	}
	r.resolver(&pod.Spec)
	r.users(pod.Spec.SecurityContext, field.NewPath("spec", "securityContext"))
	r.ephemerals(&pod.Spec)
	return r.err()
}
