package inject

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// tokenMount is where the API server's own admission mounts the pod's token for the API, in every container, after us.
const tokenMount = "/var/run/secrets/kubernetes.io/serviceaccount"

const laterFix = "something that admits pods after aegrail-engine changed it: have it leave containers, volumes and labels of aegrail alone, or let it be called before"

// Check says whether pod, as it is after everybody has changed it, is as Pod would leave it: nil, Refusals, or another error if c is at
// fault. What others may do to our containers is to set resources, the pull policy, and the mount of the pod's own token.
// An older generation of the root is as good as the newest: it may have come while the pod was on its way.
func Check(pod *corev1.Pod, c Config) error {
	uid, err := strconv.ParseUint(pod.Annotations[AnnotationEngineUID], 10, 32)
	if err != nil || !engineUID(int64(uid)) || !Marked(pod) {
		return Refusals{{"metadata.labels[" + LabelInjected + "]", "the pod is not injected, and here it has to be", laterFix}}
	}
	if c.CAGeneration > 0 {
		text := pod.Annotations[AnnotationCAGeneration]
		generation, ok := Generation(text)
		if !ok || generation > c.CAGeneration {
			at := "metadata.annotations[" + AnnotationCAGeneration + "]"
			return Refusals{{at, fmt.Sprintf("%q is no generation of the namespace's root; the newest is %d", text, c.CAGeneration), laterFix}}
		}
		c.CAGeneration = generation
	}
	c.UID = func() (uint32, error) { return uint32(uid), nil }
	want, err := Pod(pod, c)
	if err != nil {
		return err
	}
	var r Refusals
	r.marks(pod, want)
	r.order(pod, want)
	if len(r) == 0 {
		r.ours(pod, want)
		r.others(pod, want)
	}
	return r.err()
}

// marks compares what the pod says of itself.
func (r *Refusals) marks(have, want *corev1.Pod) {
	if have.Labels[LabelInjected] != want.Labels[LabelInjected] {
		r.add(field.NewPath("metadata", "labels").Key(LabelInjected), fmt.Sprintf("is %q", have.Labels[LabelInjected]), laterFix)
	}
	for _, name := range []string{AnnotationEngineUID, AnnotationCAGeneration} {
		if have.Annotations[name] != want.Annotations[name] {
			r.add(field.NewPath("metadata", "annotations").Key(name), fmt.Sprintf("is %q", have.Annotations[name]), laterFix)
		}
	}
}

// order wants the same init containers in the same places: what comes before aegrail-init is not redirected.
func (r *Refusals) order(have, want *corev1.Pod) {
	name := func(c corev1.Container) string { return c.Name }
	is, must := names(have.Spec.InitContainers, name), names(want.Spec.InitContainers, name)
	if !slices.Equal(is, must) {
		r.add(field.NewPath("spec", "initContainers"), fmt.Sprintf("are in the order %s and must be %s", strings.Join(is, ", "), strings.Join(must, ", ")), laterFix)
	}
}

func names[T any](list []T, name func(T) string) []string {
	out := make([]string, 0, len(list))
	for _, one := range list {
		out = append(out, name(one))
	}
	return out
}

// ours compares our containers and volumes, whole.
func (r *Refusals) ours(have, want *corev1.Pod) {
	for i, c := range want.Spec.InitContainers {
		if Ours(c.Name) && !same(have.Spec.InitContainers[i], c) {
			r.add(field.NewPath("spec", "initContainers").Key(c.Name), "is not as it was injected", laterFix)
		}
	}
	for _, v := range want.Spec.Volumes {
		if OurVolume(v.Name) && !slices.ContainsFunc(have.Spec.Volumes, func(h corev1.Volume) bool { return equality.Semantic.DeepEqual(h, v) }) {
			r.add(field.NewPath("spec", "volumes").Key(v.Name), "is not as it was injected", laterFix)
		}
	}
	for _, v := range have.Spec.Volumes {
		if OurVolume(v.Name) && !slices.ContainsFunc(want.Spec.Volumes, func(w corev1.Volume) bool { return w.Name == v.Name }) {
			r.add(field.NewPath("spec", "volumes").Key(v.Name), "is none of this engine's volumes", laterFix)
		}
	}
}

// same reports that have is want but for what others may set, and for what a newer API server fills in by itself.
func same(have, want corev1.Container) bool {
	have, want = settled(have), settled(want)
	probes := func(c *corev1.Container) []**corev1.Probe {
		return []**corev1.Probe{&c.StartupProbe, &c.LivenessProbe, &c.ReadinessProbe}
	}
	for i, is := range probes(&have) {
		must := probes(&want)[i]
		// A probe that was not there may run a program as the engine.
		if (*is == nil) != (*must == nil) || !equality.Semantic.DeepDerivative(*must, *is) {
			return false
		}
		*is, *must = nil, nil
	}
	return equality.Semantic.DeepEqual(have, want)
}

// settled is c without what the cluster's own admission does to every container.
func settled(c corev1.Container) corev1.Container {
	c.ImagePullPolicy, c.TerminationMessagePath, c.TerminationMessagePolicy = "", "", ""
	c.Resources, c.ResizePolicy = corev1.ResourceRequirements{}, nil
	c.VolumeMounts = slices.DeleteFunc(slices.Clone(c.VolumeMounts), func(m corev1.VolumeMount) bool {
		return m.MountPath == tokenMount && m.ReadOnly && strings.HasPrefix(m.Name, "kube-api-access-")
	})
	if sc := c.SecurityContext; sc != nil && sc.ProcMount != nil && *sc.ProcMount == corev1.DefaultProcMount {
		c.SecurityContext = sc.DeepCopy()
		c.SecurityContext.ProcMount = nil
	}
	return c
}

// others compares what Pod makes of every other container, whatever the order in which others have added to it. Both have the
// same containers in the same order.
func (r *Refusals) others(have, want *corev1.Pod) {
	var wants []*corev1.Container
	each(&want.Spec, func(_ *field.Path, c *corev1.Container) { wants = append(wants, c) })
	i := 0
	each(&have.Spec, func(at *field.Path, h *corev1.Container) {
		w := wants[i]
		i++
		if !equality.Semantic.DeepEqual(h.SecurityContext, w.SecurityContext) {
			r.add(at.Child("securityContext"), "is not as it was injected", laterFix)
		}
		if !slices.ContainsFunc(h.VolumeMounts, isCAMount) {
			r.add(at.Child("volumeMounts"), "lacks the bundle of CAs at "+PathCA, laterFix)
		}
		is, must := effective(h.Env), effective(w.Env)
		for _, name := range slices.Sorted(maps.Keys(must)) {
			if !equality.Semantic.DeepEqual(is[name], must[name]) {
				r.add(at.Child("env").Key(name), "is not as it was injected", laterFix)
			}
		}
	})
}

// effective is what a process gets of env: of several variables of a name the last.
func effective(env []corev1.EnvVar) map[string]corev1.EnvVar {
	out := map[string]corev1.EnvVar{}
	for _, v := range env {
		out[v.Name] = v
	}
	return out
}
