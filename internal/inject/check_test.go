package inject

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// injected is the pod of testdata/name with the engine in it.
func injected(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	out, err := Pod(readPod(t, name), config())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// container finds a container of pod by name, wherever it is.
func container(t testing.TB, pod *corev1.Pod, name string) *corev1.Container {
	t.Helper()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i]
		}
	}
	t.Fatalf("the pod has no container %s", name)
	return nil
}

// What somebody who admits pods after us may have done, and the field that is named for it.
func TestWhatALaterInjectorUndoesIsRefused(t *testing.T) {
	type pod = corev1.Pod
	engine := func(t *testing.T, p *pod) *corev1.Container { return container(t, p, ContainerEngine) }
	first := func(t *testing.T, p *pod) *corev1.Container { return container(t, p, ContainerInit) }
	agent := func(t *testing.T, p *pod) *corev1.Container { return container(t, p, "agent") }
	late := corev1.Container{Name: "late", Image: "late:1"}
	for what, row := range map[string]struct {
		field string
		do    func(*testing.T, *pod)
	}{
		"the mark is removed":                 {"metadata.labels[aegrail.io/injected]", func(_ *testing.T, p *pod) { delete(p.Labels, LabelInjected) }},
		"the mark says something else":        {"metadata.labels[aegrail.io/injected]", func(_ *testing.T, p *pod) { p.Labels[LabelInjected] = "maybe" }},
		"the engine's user is another":        {"spec.initContainers[aegrail-init]", func(_ *testing.T, p *pod) { p.Annotations[AnnotationEngineUID] = "2000000007" }},
		"the engine's user is root":           {"metadata.labels[aegrail.io/injected]", func(_ *testing.T, p *pod) { p.Annotations[AnnotationEngineUID] = "0" }},
		"the engine's user is spelled oddly":  {"metadata.annotations[aegrail.io/engine-uid]", func(_ *testing.T, p *pod) { p.Annotations[AnnotationEngineUID] = "02000123456" }},
		"the engine's user is gone":           {"metadata.labels[aegrail.io/injected]", func(_ *testing.T, p *pod) { delete(p.Annotations, AnnotationEngineUID) }},
		"the generation is gone":              {"metadata.annotations[aegrail.io/ca-generation]", func(_ *testing.T, p *pod) { delete(p.Annotations, AnnotationCAGeneration) }},
		"the generation is to come":           {"metadata.annotations[aegrail.io/ca-generation]", func(_ *testing.T, p *pod) { p.Annotations[AnnotationCAGeneration] = "2" }},
		"the generation is none":              {"metadata.annotations[aegrail.io/ca-generation]", func(_ *testing.T, p *pod) { p.Annotations[AnnotationCAGeneration] = "0" }},
		"a container comes before the engine": {"spec.initContainers", func(_ *testing.T, p *pod) { p.Spec.InitContainers = slices.Insert(p.Spec.InitContainers, 1, late) }},
		"a container comes before all":        {"spec.initContainers", func(_ *testing.T, p *pod) { p.Spec.InitContainers = slices.Insert(p.Spec.InitContainers, 0, late) }},
		"the engine comes last":               {"spec.initContainers", func(_ *testing.T, p *pod) { l := p.Spec.InitContainers; l[1], l[2] = l[2], l[1] }},
		"aegrail-init is removed":             {"spec.initContainers", func(_ *testing.T, p *pod) { p.Spec.InitContainers = p.Spec.InitContainers[1:] }},
		"the engine is removed":               {"spec.initContainers", func(_ *testing.T, p *pod) { p.Spec.InitContainers = slices.Delete(p.Spec.InitContainers, 1, 2) }},
		"the engine has another image":        {"spec.initContainers[aegrail-engine].image", func(t *testing.T, p *pod) { engine(t, p).Image = "evil:1" }},
		"aegrail-init has another image":      {"spec.initContainers[aegrail-init].image", func(t *testing.T, p *pod) { first(t, p).Image = "evil:1" }},
		"aegrail-init does nothing":           {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) { first(t, p).Command = []string{"/bin/true"} }},
		"aegrail-init marks for another user": {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) { first(t, p).Args[1] = "--engine-uid=1000" }},
		"aegrail-init frees more": {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) {
			first(t, p).Env[0] = corev1.EnvVar{Name: "AEGRAIL_INIT_FREE", Value: "0.0.0.0/1"}
		}},
		"aegrail-init can do more": {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) {
			first(t, p).SecurityContext.Capabilities.Add = append(first(t, p).SecurityContext.Capabilities.Add, "SYS_ADMIN")
		}},
		"aegrail-init is no sidecar":     {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) { first(t, p).RestartPolicy = nil }},
		"aegrail-init is not waited for": {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) { first(t, p).StartupProbe = nil }},
		"aegrail-init counts as up":      {"spec.initContainers[aegrail-init]", func(t *testing.T, p *pod) { first(t, p).StartupProbe.Exec.Command = []string{CommandInit, "--help"} }},
		"the way out is the node's": {"spec.volumes[aegrail-passage]", func(_ *testing.T, p *pod) {
			volume(p, VolumePassage).VolumeSource = corev1.VolumeSource{HostPath: new(corev1.HostPathVolumeSource)}
		}},
		"the way out is the agent's too": {"spec.containers[agent].volumeMounts[/p]", func(t *testing.T, p *pod) {
			agent(t, p).VolumeMounts = append(agent(t, p).VolumeMounts, corev1.VolumeMount{Name: VolumePassage, MountPath: "/p"})
		}},
		"the engine is no sidecar": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) { engine(t, p).RestartPolicy = nil }},
		"the engine observes":      {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) { engine(t, p).Args = append(engine(t, p).Args, "--observe") }},
		"the engine gets a variable": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) {
			engine(t, p).Env = append(engine(t, p).Env, corev1.EnvVar{Name: "AEGRAIL_ENGINE_OBSERVE", Value: "1"})
		}},
		"the engine gets many": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) {
			engine(t, p).EnvFrom = []corev1.EnvFromSource{{Prefix: "AEGRAIL_ENGINE_", ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
		}},
		"the engine runs a hook": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) { engine(t, p).Lifecycle = new(corev1.Lifecycle) }},
		"the engine is probed by a program": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) {
			engine(t, p).LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{CommandEngine, "serve"}}}}
		}},
		"the engine counts as ready": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) {
			engine(t, p).StartupProbe.ProbeHandler = corev1.ProbeHandler{TCPSocket: new(corev1.TCPSocketAction)}
		}},
		"the engine is not waited for":    {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) { engine(t, p).StartupProbe = nil }},
		"the engine runs as another user": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) { engine(t, p).SecurityContext.RunAsUser = new(int64(0)) }},
		"the engine's files are writable": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) { engine(t, p).SecurityContext.ReadOnlyRootFilesystem = nil }},
		"the engine gets a mount": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) {
			engine(t, p).VolumeMounts = append(engine(t, p).VolumeMounts, corev1.VolumeMount{Name: "work", MountPath: "/etc/ssl/certs"})
		}},
		"a token of another's name": {"spec.initContainers[aegrail-engine]", func(t *testing.T, p *pod) {
			engine(t, p).VolumeMounts = append(engine(t, p).VolumeMounts, corev1.VolumeMount{Name: "work", MountPath: tokenMount, ReadOnly: true})
		}},
		"the token has no audience": {"spec.volumes[aegrail-token]", func(_ *testing.T, p *pod) {
			volume(p, VolumeToken).Projected.Sources[0].ServiceAccountToken.Audience = ""
		}},
		"the bundle is another":     {"spec.volumes[aegrail-ca]", func(_ *testing.T, p *pod) { volume(p, VolumeCA).ConfigMap.Name = "mine" }},
		"the bundle may be missing": {"spec.volumes[aegrail-ca]", func(_ *testing.T, p *pod) { volume(p, VolumeCA).ConfigMap.Optional = new(true) }},
		"the log is in memory":      {"spec.volumes[aegrail-log]", func(_ *testing.T, p *pod) { volume(p, VolumeLog).EmptyDir.Medium = corev1.StorageMediumMemory }},
		"the log is on the node": {"spec.volumes[aegrail-log]", func(_ *testing.T, p *pod) {
			volume(p, VolumeLog).VolumeSource = corev1.VolumeSource{HostPath: new(corev1.HostPathVolumeSource)}
		}},
		"the log is gone": {"spec.volumes[aegrail-log]", func(_ *testing.T, p *pod) {
			p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == VolumeLog })
		}},
		"a volume of plain mode": {"spec.volumes[aegrail-key]", func(_ *testing.T, p *pod) { p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: VolumeKey}) }},
		"another token for control": {"spec.volumes[t].projected.sources[0].serviceAccountToken.audience", func(_ *testing.T, p *pod) {
			v := volume(p, VolumeToken).DeepCopy()
			v.Name = "t"
			p.Spec.Volumes = append(p.Spec.Volumes, *v)
		}},
		"the agent mounts the token": {"spec.containers[agent].volumeMounts[/t]", func(t *testing.T, p *pod) {
			agent(t, p).VolumeMounts = append(agent(t, p).VolumeMounts, corev1.VolumeMount{Name: VolumeToken, MountPath: "/t"})
		}},
		"the agent lacks the bundle": {"spec.containers[agent].volumeMounts", func(t *testing.T, p *pod) { agent(t, p).VolumeMounts = nil }},
		"the agent trusts something else": {"spec.containers[agent].env[SSL_CERT_FILE]", func(t *testing.T, p *pod) {
			agent(t, p).Env = append(agent(t, p).Env, corev1.EnvVar{Name: "SSL_CERT_FILE", Value: "/own.pem"})
		}},
		"the agent may become another user":     {"spec.containers[agent].securityContext", func(t *testing.T, p *pod) { agent(t, p).SecurityContext.Capabilities.Drop = nil }},
		"the agent is privileged":               {"spec.containers[agent].securityContext.privileged", func(t *testing.T, p *pod) { agent(t, p).SecurityContext.Privileged = new(true) }},
		"the agent may escalate":                {"spec.containers[agent].securityContext.allowPrivilegeEscalation", func(t *testing.T, p *pod) { agent(t, p).SecurityContext.AllowPrivilegeEscalation = new(true) }},
		"escalation is not said":                {"spec.containers[agent].securityContext", func(t *testing.T, p *pod) { agent(t, p).SecurityContext.AllowPrivilegeEscalation = nil }},
		"system calls are not filtered":         {"spec.initContainers[cache].securityContext", func(t *testing.T, p *pod) { container(t, p, "cache").SecurityContext.SeccompProfile = nil }},
		"the agent runs as the engine":          {"spec.containers[agent].securityContext.runAsUser", func(t *testing.T, p *pod) { agent(t, p).SecurityContext.RunAsUser = new(int64(testUID)) }},
		"the pod runs as the engine":            {"spec.securityContext.runAsUser", func(_ *testing.T, p *pod) { p.Spec.SecurityContext.RunAsUser = new(int64(testUID)) }},
		"a container is added":                  {"spec.containers[late].securityContext", func(_ *testing.T, p *pod) { p.Spec.Containers = append(p.Spec.Containers, late) }},
		"an init container is added at the end": {"spec.initContainers[late].securityContext", func(_ *testing.T, p *pod) { p.Spec.InitContainers = append(p.Spec.InitContainers, late) }},
		"the pod has its node's network":        {"spec.hostNetwork", func(_ *testing.T, p *pod) { p.Spec.HostNetwork = true }},
		"the pod names a resolver":              {"spec.dnsPolicy", func(_ *testing.T, p *pod) { p.Spec.DNSPolicy = corev1.DNSNone }},
		"processes are shared":                  {"spec.shareProcessNamespace", func(_ *testing.T, p *pod) { p.Spec.ShareProcessNamespace = new(true) }},
		"a node's path is mounted": {"spec.volumes[h].hostPath", func(_ *testing.T, p *pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/lib/kubelet"}}})
		}},
	} {
		p := injected(t, "rich")
		row.do(t, p)
		err := Check(p, config())
		one := new(Refusal)
		if !errors.As(err, &one) {
			t.Errorf("%s: is let in, %v", what, err)
			continue
		}
		if one.Field != row.field || one.Fix == "" {
			t.Errorf("%s: %v should name %s", what, err, row.field)
		}
	}
}

func volume(p *corev1.Pod, name string) *corev1.Volume {
	i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	return &p.Spec.Volumes[i]
}

// What the cluster's own admission and well-behaved injectors do.
func TestWhatOthersMayDoAfterwardsIsLetIn(t *testing.T) {
	p := injected(t, "rich")
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		c.ImagePullPolicy = corev1.PullAlways // AlwaysPullImages
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		if c.Name == ContainerInit || c.Name == ContainerEngine { // ServiceAccount
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "kube-api-access-x7k2p", MountPath: tokenMount, ReadOnly: true})
			c.SecurityContext.ProcMount = new(corev1.DefaultProcMount) // API servers before 1.33
		}
	}
	container(t, p, ContainerEngine).StartupProbe.HTTPGet.Protocol = new(corev1.HTTPProtocolHTTP1) // API servers from 1.37
	agent := container(t, p, "agent")
	agent.Env = append([]corev1.EnvVar{{Name: "TRACE", Value: "1"}}, append(agent.Env, corev1.EnvVar{Name: "SPAN", Value: "2"})...)
	agent.VolumeMounts = append(agent.VolumeMounts, corev1.VolumeMount{Name: "more", MountPath: "/more"})
	p.Spec.Volumes = append([]corev1.Volume{{Name: "more", VolumeSource: corev1.VolumeSource{EmptyDir: new(corev1.EmptyDirVolumeSource)}}}, p.Spec.Volumes...)
	p.Labels["mesh"], p.Annotations["mesh"] = "yes", "yes"
	p.Spec.Tolerations = []corev1.Toleration{{Key: "node.kubernetes.io/not-ready"}}
	if err := Check(p, config()); err != nil {
		t.Error(err)
	}
}

func TestARootThatIsNewSinceThePodWasInjectedIsNoFault(t *testing.T) {
	c := config()
	c.CAGeneration = 2
	if err := Check(injected(t, "rich"), c); err != nil {
		t.Error(err)
	}
}

func TestInjectingAgainMovesTheEngineToTheFrontAndRestoresIt(t *testing.T) {
	want := injected(t, "rich")
	p := want.DeepCopy()
	late := corev1.Container{Name: "vault-agent-init", Image: "vault:1"}
	p.Spec.InitContainers = slices.Insert(p.Spec.InitContainers, 0, late)
	container(t, p, ContainerEngine).Env = append(container(t, p, ContainerEngine).Env, corev1.EnvVar{Name: "VAULT", Value: "1"})
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "vault-agent", Image: "vault:1"})
	volume(p, VolumeLog).EmptyDir.SizeLimit = nil
	if err := Check(p, config()); err == nil {
		t.Error("is let in as the later injector left it")
	}
	again, err := Pod(p, config())
	if err != nil {
		t.Fatal(err)
	}
	name := func(c corev1.Container) string { return c.Name }
	if got := strings.Join(names(again.Spec.InitContainers, name), " "); got != "aegrail-init aegrail-engine vault-agent-init fetch-model cache" {
		t.Errorf("the order is %s", got)
	}
	if got := len(container(t, again, ContainerEngine).Env); got != len(container(t, want, ContainerEngine).Env) {
		t.Error("the engine keeps what was added to it")
	}
	if err := Check(again, config()); err != nil {
		t.Error(err)
	}
}

func TestAConfigThatMakesNoPodChecksNone(t *testing.T) {
	c := config()
	c.Image = ""
	var refusals Refusals
	if err := Check(injected(t, "simple"), c); err == nil || errors.As(err, &refusals) {
		t.Errorf("%v: the operator's fault is the pod's", err)
	}
}

func BenchmarkPod(b *testing.B) {
	in, c := readPod(b, "rich"), config()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Pod(in, c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	in, c := injected(b, "rich"), config()
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(in, c); err != nil {
			b.Fatal(err)
		}
	}
}
