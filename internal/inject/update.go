package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CheckUpdate says whether an injected pod may change from before to after. Of a pod's containers the API server lets only the images
// change, and ours may not: a newer engine would not know the rules of an older aegrail-init, which let out another thing.
func CheckUpdate(before, after *corev1.Pod) error {
	var r Refusals
	frozen := func(kind, name string, before, after map[string]string) {
		was, had := before[name]
		if is, has := after[name]; is != was || has != had {
			r.add(field.NewPath("metadata", kind).Key(name), "is as it was when the pod was made, and stays so", "make a new pod")
		}
	}
	for _, name := range []string{LabelInject, LabelInjected} {
		frozen("labels", name, before.Labels, after.Labels)
	}
	for _, name := range []string{LabelInject, AnnotationEngineUID, AnnotationCAGeneration} {
		frozen("annotations", name, before.Annotations, after.Annotations)
	}
	for _, is := range after.Spec.InitContainers {
		i := slices.IndexFunc(before.Spec.InitContainers, func(was corev1.Container) bool { return was.Name == is.Name })
		if i >= 0 && Ours(is.Name) && before.Spec.InitContainers[i].Image != is.Image {
			r.add(field.NewPath("spec", "initContainers").Key(is.Name).Child("image"), "the engine's image stays as it was when the pod was made", "make a new pod")
		}
	}
	return r.err()
}

// CheckResize says whether an injected pod may be resized from before to after. Of that the API server takes resources, of some containers
// resize policies, and the size of volumes in memory. The engine's stay: who takes its memory has it killed with requests under
// way, and who changes the policy restarts it.
func CheckResize(before, after *corev1.Pod) error {
	const fix = "leave it as it was, and set engine.resources in the chart's values for pods that are made from then on; of a VerticalPodAutoscaler, " +
		"set the mode of the container to Off in its resourcePolicy"
	var r Refusals
	for i := range after.Spec.InitContainers {
		is := &after.Spec.InitContainers[i]
		j := slices.IndexFunc(before.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == is.Name })
		if j < 0 || !Ours(is.Name) {
			continue
		}
		was, at := &before.Spec.InitContainers[j], field.NewPath("spec", "initContainers").Key(is.Name)
		if !equality.Semantic.DeepEqual(was.Resources, is.Resources) {
			r.add(at.Child("resources"), "the engine's resources stay as they were when the pod was made", fix)
		}
		if !equality.Semantic.DeepEqual(was.ResizePolicy, is.ResizePolicy) {
			r.add(at.Child("resizePolicy"), "the engine's resize policy stays as it was when the pod was made", fix)
		}
	}
	for i, is := range after.Spec.Volumes {
		j := slices.IndexFunc(before.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == is.Name })
		if j >= 0 && OurVolume(is.Name) && !equality.Semantic.DeepEqual(before.Spec.Volumes[j], after.Spec.Volumes[i]) {
			r.add(field.NewPath("spec", "volumes").Key(is.Name), "the engine's volumes stay as they were when the pod was made", "leave it as it was")
		}
	}
	return r.err()
}

// CheckUnmarked refuses what only an injected pod may have: our marks, and a token that speaks for an engine.
func CheckUnmarked(pod *corev1.Pod) error {
	const fix = "remove it: it is set when a pod is injected; label the namespace " + LabelInject + "=" + InjectNamespace + ", or the pod " + LabelInject + "=" + InjectPod
	var r Refusals
	if Marked(pod) {
		r.add(field.NewPath("metadata", "labels").Key(LabelInjected), "the pod is not injected and says that it is", fix)
	}
	for _, name := range []string{AnnotationEngineUID, AnnotationCAGeneration} {
		if _, has := pod.Annotations[name]; has {
			r.add(field.NewPath("metadata", "annotations").Key(name), "the pod is not injected and says that it is", fix)
		}
	}
	for _, v := range pod.Spec.Volumes {
		r.tokens(field.NewPath("spec", "volumes").Key(v.Name), v)
	}
	return r.err()
}

// Ephemeral returns an injected pod with its ephemeral containers as they may run beside the engine, or Refusals. pod is not modified, and nothing
// else of it is changed: the API server would not take it.
func Ephemeral(pod *corev1.Pod) (*corev1.Pod, error) {
	var r Refusals
	secrets := keySecrets(&pod.Spec, "")
	only := &corev1.PodSpec{EphemeralContainers: pod.Spec.EphemeralContainers, SecurityContext: pod.Spec.SecurityContext, OS: pod.Spec.OS}
	each(only, func(at *field.Path, have *corev1.Container) { r.container(at, have, secrets) })
	r.ephemerals(only)
	r.early(pod)
	r.baseline(&corev1.Pod{ObjectMeta: pod.ObjectMeta, Spec: *only})
	if err := r.err(); err != nil {
		return nil, err
	}
	out := pod.DeepCopy()
	e := Advisory
	if slices.ContainsFunc(out.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == ContainerInit }) {
		e = Transparent
	}
	for i := range out.Spec.EphemeralContainers {
		have := &out.Spec.EphemeralContainers[i]
		if err := beside((*corev1.Container)(&have.EphemeralContainerCommon), out.Spec.SecurityContext, e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// early refuses ephemeral containers in a pod that is not held yet: kubelet starts them before init containers too.
func (r *Refusals) early(pod *corev1.Pod) {
	if len(pod.Spec.EphemeralContainers) == 0 {
		return
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == ContainerEngine && s.Started != nil && *s.Started && s.State.Running != nil {
			return
		}
	}
	r.add(field.NewPath("spec", "ephemeralContainers"), "the engine of the pod is not up, and a container that starts before it is not held", "try again once "+ContainerEngine+" runs")
}

// CheckEphemeral says whether the ephemeral containers of an injected pod are as Ephemeral would leave them.
func CheckEphemeral(pod *corev1.Pod) error {
	want, err := Ephemeral(pod)
	if err != nil {
		return err
	}
	var r Refusals
	for i, have := range pod.Spec.EphemeralContainers {
		if !equality.Semantic.DeepEqual(have, want.Spec.EphemeralContainers[i]) {
			r.add(field.NewPath("spec", "ephemeralContainers").Key(have.Name), "is not as it was injected", laterFix)
		}
	}
	return r.err()
}
