package inject

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Pod returns pod with the engine in it, or why that cannot be: a Refusal or several as Refusals, or another error if c is at fault. pod is
// not modified. What Pod returned may be given to it again and comes back the same but for the engine's user, which is drawn
// anew each time: a pod cannot bring its own.
func Pod(pod *corev1.Pod, c Config) (*corev1.Pod, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	uid, err := c.draw()
	if err != nil {
		return nil, err
	}
	if err := refuse(pod, &c).err(); err != nil {
		return nil, err
	}
	out := pod.DeepCopy()
	spec := &out.Spec

	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(have corev1.Container) bool { return Ours(have.Name) })
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(have corev1.Volume) bool { return OurVolume(have.Name) })
	if err := harden(spec, &c); err != nil {
		return nil, err
	}
	first := []corev1.Container{c.engine(uid)}
	if c.Enforcement == Transparent {
		first = []corev1.Container{c.initContainer(uid), c.engine(uid)}
	}
	spec.InitContainers = append(first, spec.InitContainers...)
	spec.Volumes = append(spec.Volumes, c.volumes()...)

	out.Labels = with(out.Labels, map[string]string{LabelInjected: "true"})
	delete(out.Annotations, AnnotationCAGeneration)
	out.Annotations = with(out.Annotations, c.annotations(uid))
	return out, nil
}

// with is m with more in it.
func with(m, more map[string]string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	for k, v := range more {
		m[k] = v
	}
	return m
}

// Marked reports that the pod says it is injected. It is true of no pod that was not: admission sees to that.
func Marked(pod *corev1.Pod) bool {
	_, is := pod.Labels[LabelInjected]
	return is
}

// Over reports that nothing of pod runs any more.
func Over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Generation reads the generation of a namespace's root as AnnotationCAGeneration says it; false for "" and what else is no number from 1.
func Generation(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 1
}

// Ours reports that a container of that name is added here.
func Ours(container string) bool { return container == ContainerInit || container == ContainerEngine }

// OurVolume reports that a volume of that name is added here.
func OurVolume(name string) bool { return name == VolumeCA || slices.Contains(engineOnly(), name) }

// each calls do for every container of spec that is not ours, with its place. do may change the container.
func each(spec *corev1.PodSpec, do func(at *field.Path, have *corev1.Container)) {
	for i := range spec.InitContainers {
		if have := &spec.InitContainers[i]; !Ours(have.Name) {
			do(field.NewPath("spec", "initContainers").Key(have.Name), have)
		}
	}
	for i := range spec.Containers {
		do(field.NewPath("spec", "containers").Key(spec.Containers[i].Name), &spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		// The two types have the same fields, and the API machinery converts them so as well.
		have := (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon)
		do(field.NewPath("spec", "ephemeralContainers").Key(have.Name), have)
	}
}
