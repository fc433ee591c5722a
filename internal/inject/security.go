package inject

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// addable are the capabilities that a container may ask for: those that Pod Security's baseline allows, less what is dropped.
func addable() []corev1.Capability {
	return []corev1.Capability{"AUDIT_WRITE", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETPCAP", "SYS_CHROOT"}
}

// context refuses rights by which a container could leave its place.
func (r *Refusals) context(at *field.Path, sc *corev1.SecurityContext) {
	if sc.Privileged != nil && *sc.Privileged {
		r.add(at.Child("privileged"), "a privileged container can undo the redirect and read the engine's memory", "remove it")
	}
	if sc.AllowPrivilegeEscalation != nil && *sc.AllowPrivilegeEscalation {
		r.add(at.Child("allowPrivilegeEscalation"), "it is false in every container beside the engine, and this one asks for true", "remove it, or set it to false")
	}
	r.user(at.Child("runAsUser"), sc.RunAsUser)
	r.user(at.Child("runAsGroup"), sc.RunAsGroup)
	if sc.Capabilities != nil {
		for _, name := range sc.Capabilities.Add {
			if !slices.Contains(addable(), name) {
				r.add(at.Child("capabilities", "add"), fmt.Sprintf("%s leads out of the container, to another user or around the redirect", name), capabilityFix(name))
			}
		}
	}
}

func capabilityFix(name corev1.Capability) string {
	switch name {
	case "SYS_PTRACE":
		return "remove it (kubectl debug: --profile=restricted or --profile=baseline)"
	case "NET_ADMIN", "NET_RAW":
		return "remove it; a service mesh's init container cannot change the network of this pod too (leave the pod out of the mesh, or use one that needs no sidecar)"
	default:
		return fmt.Sprintf("remove it; what may be added is %s", strings.Trim(fmt.Sprint(addable()), "[]"))
	}
}

// ephemerals refuses containers that join the engine's processes.
func (r *Refusals) ephemerals(spec *corev1.PodSpec) {
	for _, e := range spec.EphemeralContainers {
		at := field.NewPath("spec", "ephemeralContainers").Key(e.Name)
		if Ours(e.TargetContainerName) {
			r.add(at.Child("targetContainerName"), "a container that joins the engine's processes can read what they hold", "name another container (kubectl debug: --target)")
		}
		if Ours(e.Name) {
			r.add(at, "the name is the engine's", "choose another name")
		}
	}
}

// podSecurity judges by the checks that the API server has. It is made once, as that takes longer than an injection, and never changes.
var podSecurity = sync.OnceValues(func() (policy.Evaluator, error) {
	return policy.NewEvaluator(policy.DefaultChecks(), nil)
})

// baseline holds pod, without what is ours, to Pod Security's level of that name: it is what the namespace cannot enforce.
func (r *Refusals) baseline(pod *corev1.Pod) {
	if len(*r) > 0 {
		return // what is wrong has been named, and some of it would be named twice
	}
	evaluator, err := podSecurity()
	if err != nil {
		r.add(field.NewPath("spec"), "Pod Security cannot be judged: "+err.Error(), "report this")
		return
	}
	meta, spec := pod.ObjectMeta, pod.Spec
	spec.InitContainers = slices.DeleteFunc(slices.Clone(spec.InitContainers), func(c corev1.Container) bool { return Ours(c.Name) })
	spec.Volumes = slices.DeleteFunc(slices.Clone(spec.Volumes), func(v corev1.Volume) bool { return OurVolume(v.Name) })
	level := api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &meta, &spec))
	if !result.Allowed {
		r.add(field.NewPath("spec"), "Pod Security's level baseline is broken by "+result.ForbiddenDetail(), "remove that; beside the engine every container is held to baseline")
	}
}
