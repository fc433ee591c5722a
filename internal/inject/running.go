package inject

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CheckRunning says whether the engine of a pod that runs can be given a certificate authority: nil, or Refusals. It looks for what
// keeps the engine's token and user the engine's alone, and not at what an earlier release wrote differently: a pod outlives
// the control that injected it, and its authority is renewed each day. That the rest is right was checked when it was made (Check)
// and at each change (CheckUpdate).
func CheckRunning(pod *corev1.Pod) error {
	var r Refusals
	spec := field.NewPath("spec")
	uid, err := strconv.ParseInt(pod.Annotations[AnnotationEngineUID], 10, 64)
	if err != nil || !engineUID(uid) || pod.Labels[LabelInjected] != "true" {
		r.add(field.NewPath("metadata", "annotations").Key(AnnotationEngineUID), "the pod is not injected", "make it anew in a namespace that is labelled")
		return r
	}
	at := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == ContainerEngine })
	if at < 0 {
		r.add(spec.Child("initContainers"), "there is no "+ContainerEngine, laterFix)
		return r
	}
	engine := &pod.Spec.InitContainers[at]
	if s := engine.SecurityContext; s == nil || s.RunAsUser == nil || *s.RunAsUser != uid {
		r.add(spec.Child("initContainers").Key(ContainerEngine).Child("securityContext", "runAsUser"), fmt.Sprintf("is not %d, the user that the pod's rules let out", uid), laterFix)
	}
	if !slices.Equal(engine.Command, []string{CommandEngine}) {
		r.add(spec.Child("initContainers").Key(ContainerEngine).Child("command"), "is not the engine", laterFix)
	}
	r.theToken(pod)
	r.alone(pod, uid)
	return r.err()
}

// theToken wants one token for control, in the volume that is the engine's.
func (r *Refusals) theToken(pod *corev1.Pod) {
	found := false
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken == nil || s.ServiceAccountToken.Audience != TokenAudience {
				continue
			}
			if found = true; v.Name != VolumeToken {
				r.add(field.NewPath("spec", "volumes").Key(v.Name), "holds a token for "+TokenAudience, "remove it: that token is the engine's alone")
			}
		}
	}
	if !found {
		r.add(field.NewPath("spec", "volumes"), "there is no token for "+TokenAudience, laterFix)
	}
}

// alone wants nobody but the engine to have its volumes or its user.
func (r *Refusals) alone(pod *corev1.Pod, uid int64) {
	look := func(kind, name string, mounts []corev1.VolumeMount, s *corev1.SecurityContext) {
		if kind == "initContainers" && name == ContainerEngine {
			return
		}
		at := field.NewPath("spec", kind).Key(name)
		for _, m := range mounts {
			if slices.Contains(engineOnly(), m.Name) {
				r.add(at.Child("volumeMounts").Key(m.Name), "is the engine's alone", "remove the mount")
			}
		}
		if s != nil && s.RunAsUser != nil && *s.RunAsUser == uid {
			r.add(at.Child("securityContext", "runAsUser"), "is the engine's user", "run it as another")
		}
	}
	for _, c := range pod.Spec.InitContainers {
		look("initContainers", c.Name, c.VolumeMounts, c.SecurityContext)
	}
	for _, c := range pod.Spec.Containers {
		look("containers", c.Name, c.VolumeMounts, c.SecurityContext)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		look("ephemeralContainers", c.Name, c.VolumeMounts, c.SecurityContext)
	}
	if s := pod.Spec.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == uid {
		r.add(field.NewPath("spec", "securityContext", "runAsUser"), "is the engine's user", "run the pod as another")
	}
}
