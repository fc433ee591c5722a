package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestARunningPodIsJudgedByWhatHoldsIt changes an injected pod in the ways in
// which it would no longer hold its agents.
func TestARunningPodIsJudgedByWhatHoldsIt(t *testing.T) {
	made := func() *corev1.Pod {
		pod := &corev1.Pod{}
		pod.Name, pod.Namespace = "bot", "support"
		pod.Spec.Containers = []corev1.Container{{Name: "agent", Image: "registry.example/bot:1"}}
		out, err := Pod(pod, Config{
			Image: "registry.example/aegrail-engine:1", Enforcement: Transparent, ControlAddress: "aegrail-control.aegrail-system.svc:8443",
			CAGeneration: 1, UID: DrawUID,
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if err := CheckLive(made()); err != nil {
		t.Errorf("what was injected: %v", err)
	}
	newer := made()
	for i := range newer.Spec.InitContainers {
		newer.Spec.InitContainers[i].Image = "registry.example/aegrail-engine:2"
	}
	if err := CheckLive(newer); err != nil {
		t.Errorf("another release of the engine: %v", err)
	}
	older := made() // whose aegrail-init has ended
	older.Spec.InitContainers[0].RestartPolicy = nil
	if err := CheckLive(older); err != nil {
		t.Errorf("a pod of before aegrail-init stayed: %v", err)
	}
	for what, row := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"nothing at all":      {func(p *corev1.Pod) { *p = corev1.Pod{} }, "not injected"},
		"no label":            {func(p *corev1.Pod) { delete(p.Labels, LabelInjected) }, "not injected"},
		"no user":             {func(p *corev1.Pod) { delete(p.Annotations, AnnotationEngineUID) }, "not injected"},
		"a user of no engine": {func(p *corev1.Pod) { p.Annotations[AnnotationEngineUID] = "0" }, "not injected"},
		"another user":        {func(p *corev1.Pod) { *p.Spec.InitContainers[1].SecurityContext.RunAsUser++ }, "does not run as the user"},
		"no engine":           {func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[:1] }, "not there"},
		"an engine that ends": {func(p *corev1.Pod) { p.Spec.InitContainers[1].RestartPolicy = nil }, "no sidecar"},
		"the rules too late":  {func(p *corev1.Pod) { c := p.Spec.InitContainers; c[0], c[1] = c[1], c[0] }, "after the engine"},
		"something before them": {func(p *corev1.Pod) {
			p.Spec.InitContainers = append([]corev1.Container{{Name: "x"}}, p.Spec.InitContainers...)
		}, "before the engine"},
		"the token elsewhere": {func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: VolumeToken, MountPath: "/t"})
		}, "engine's alone"},
		"the way out elsewhere": {func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: VolumePassage, MountPath: "/p"})
		}, "engine's alone"},
		"a second token": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: TokenAudience}}},
			}}})
		}, "speaks for an engine"},
		"a resolver of its own": {func(p *corev1.Pod) {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.1"}}
		}, "would ask a server"},
		"the agent as the engine": {func(p *corev1.Pod) {
			p.Spec.Containers[0].SecurityContext.RunAsUser = p.Spec.InitContainers[1].SecurityContext.RunAsUser
		}, "engines' range"},
		"a debugger in the engine": {func(p *corev1.Pod) {
			e := corev1.EphemeralContainer{TargetContainerName: ContainerEngine}
			e.Name = "debug"
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{e}
		}, "joins the engine"},
	} {
		pod := made()
		row.change(pod)
		if err := CheckLive(pod); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", what, err, row.want)
		}
	}
}
