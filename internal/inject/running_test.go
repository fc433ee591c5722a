package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAnEngineThatRunsIsGivenAnAuthorityWhateverReleaseInjectedIt(t *testing.T) {
	for what, edit := range map[string]func(*corev1.Pod){
		"as it was injected":   func(*corev1.Pod) {},
		"by an earlier image":  func(p *corev1.Pod) { container(t, p, ContainerEngine).Image = "registry.example/aegrail-engine:0.9.0" },
		"with other flags":     func(p *corev1.Pod) { container(t, p, ContainerEngine).Args = []string{"serve", "--log-level=debug"} },
		"with other resources": func(p *corev1.Pod) { container(t, p, ContainerEngine).Resources = corev1.ResourceRequirements{} },
		"debugged": func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
		},
	} {
		pod := injected(t, "simple")
		edit(pod)
		if err := CheckRunning(pod); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAPodInWhichTheTokenIsNotTheEnginesAloneIsGivenNoAuthority(t *testing.T) {
	mount := []corev1.VolumeMount{{Name: VolumeToken, MountPath: "/t"}}
	user := &corev1.SecurityContext{RunAsUser: new(int64(testUID))}
	for _, row := range []struct {
		what, want string
		edit       func(*corev1.Pod)
	}{
		{"no mark", "not injected", func(p *corev1.Pod) { delete(p.Labels, LabelInjected) }},
		{"no user", "not injected", func(p *corev1.Pod) { delete(p.Annotations, AnnotationEngineUID) }},
		{"a user of another range", "not injected", func(p *corev1.Pod) { p.Annotations[AnnotationEngineUID] = "1000" }},
		{"no engine", "there is no aegrail-engine", func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[:1] }},
		{"an engine with another user", "runAsUser", func(p *corev1.Pod) { container(t, p, ContainerEngine).SecurityContext.RunAsUser = new(int64(1)) }},
		{"an engine without a user", "runAsUser", func(p *corev1.Pod) { container(t, p, ContainerEngine).SecurityContext = nil }},
		{"an engine that is a shell", "command", func(p *corev1.Pod) { container(t, p, ContainerEngine).Command = []string{"/bin/sh"} }},
		{"no token", "no token", func(p *corev1.Pod) { volume(p, VolumeToken).Projected = nil }},
		{"another token for control", "volumes[mine]", func(p *corev1.Pod) {
			v := volume(p, VolumeToken).DeepCopy()
			v.Name = "mine"
			p.Spec.Volumes = append(p.Spec.Volumes, *v)
		}},
		{"the token in a container", "containers[", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = mount }},
		{"the token in an init container", "initContainers[aegrail-init]", func(p *corev1.Pod) { container(t, p, ContainerInit).VolumeMounts = mount }},
		{"the token in an ephemeral container", "ephemeralContainers[debug]", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", VolumeMounts: mount}}}
		}},
		{"the engine's user in a container", "engine's user", func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = user }},
		{"the engine's user for all", "spec.securityContext", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(testUID))}
		}},
	} {
		pod := injected(t, "simple")
		row.edit(pod)
		if err := CheckRunning(pod); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.what, err, row.want)
		}
	}
}
