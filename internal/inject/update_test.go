package inject

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// wantField fails unless err is one Refusal of field.
func wantField(t *testing.T, what string, err error, field string) {
	t.Helper()
	var all Refusals
	if !errors.As(err, &all) || len(all) != 1 || all[0].Field != field || all[0].Fix == "" {
		t.Errorf("%s: %v should name %s", what, err, field)
	}
}

func TestAPodStaysInjected(t *testing.T) {
	type pod = corev1.Pod
	for what, row := range map[string]struct {
		field string
		do    func(*pod)
	}{
		"the mark is removed":     {"metadata.labels[aegrail.io/injected]", func(p *pod) { delete(p.Labels, LabelInjected) }},
		"the mark is changed":     {"metadata.labels[aegrail.io/injected]", func(p *pod) { p.Labels[LabelInjected] = "" }},
		"the wish is removed":     {"metadata.labels[aegrail.io/inject]", func(p *pod) { delete(p.Labels, LabelInject) }},
		"a wish is added":         {"metadata.annotations[aegrail.io/inject]", func(p *pod) { p.Annotations[LabelInject] = "false" }},
		"the user is changed":     {"metadata.annotations[aegrail.io/engine-uid]", func(p *pod) { p.Annotations[AnnotationEngineUID] = "2000000001" }},
		"the generation is gone":  {"metadata.annotations[aegrail.io/ca-generation]", func(p *pod) { delete(p.Annotations, AnnotationCAGeneration) }},
		"the engine is another":   {"spec.initContainers[aegrail-engine].image", func(p *pod) { p.Spec.InitContainers[1].Image = "evil:1" }},
		"aegrail-init is another": {"spec.initContainers[aegrail-init].image", func(p *pod) { p.Spec.InitContainers[0].Image = "evil:1" }},
	} {
		before := injected(t, "job")
		after := before.DeepCopy()
		row.do(after)
		wantField(t, what, CheckUpdate(before, after), row.field)
	}
}

func TestWhatIsNotTheEnginesMayChange(t *testing.T) {
	before := injected(t, "rich")
	after := before.DeepCopy()
	after.Labels["app"], after.Labels[LabelIdentity], after.Annotations["team"] = "other", "other", "other"
	after.Finalizers = []string{"x.example/y"}
	container(t, after, "agent").Image = "registry.example/bot:8"
	container(t, after, "jvm").Image = "registry.example/jvm:22" // of which only it says which user runs it
	container(t, after, "fetch-model").Image = "registry.example/fetch:2"
	if err := CheckUpdate(before, after); err != nil {
		t.Error(err)
	}
}

func TestTheEngineIsNotResized(t *testing.T) {
	type pod = corev1.Pod
	less := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}
	restart := []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}}
	for what, row := range map[string]struct {
		field string
		do    func(*pod)
	}{
		"the engine's memory is taken": {"spec.initContainers[aegrail-engine].resources", func(p *pod) { p.Spec.InitContainers[1].Resources.Limits = less }},
		"its limit is lifted":          {"spec.initContainers[aegrail-engine].resources", func(p *pod) { p.Spec.InitContainers[1].Resources.Limits = nil }},
		"a resize is to restart it":    {"spec.initContainers[aegrail-engine].resizePolicy", func(p *pod) { p.Spec.InitContainers[1].ResizePolicy = restart }},
		"aegrail-init's memory":        {"spec.initContainers[aegrail-init].resources", func(p *pod) { p.Spec.InitContainers[0].Resources.Limits = less }},
		"the log's volume": {"spec.volumes[aegrail-log]", func(p *pod) {
			i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == VolumeLog })
			p.Spec.Volumes[i].EmptyDir.SizeLimit = new(resource.MustParse("1Ki"))
		}},
	} {
		before := injected(t, "job")
		after := before.DeepCopy()
		row.do(after)
		wantField(t, what, CheckResize(before, after), row.field)
	}
	before := injected(t, "rich")
	after := before.DeepCopy()
	container(t, after, "agent").Resources.Limits = less
	container(t, after, "agent").ResizePolicy = restart
	// The same quantity in other words.
	limits := after.Spec.InitContainers[1].Resources.Limits
	limits[corev1.ResourceMemory] = resource.MustParse(strconv.FormatInt(limits.Memory().Value(), 10))
	if err := CheckResize(before, after); err != nil {
		t.Error(err)
	}
}

func TestOnlyAnInjectedPodMaySayThatItIs(t *testing.T) {
	for what, row := range map[string]struct {
		field string
		pod   string
	}{
		"the mark":       {"metadata.labels[aegrail.io/injected]", "{metadata: {labels: {aegrail.io/injected: ''}}}"},
		"the user":       {"metadata.annotations[aegrail.io/engine-uid]", "{metadata: {annotations: {aegrail.io/engine-uid: '5'}}}"},
		"the generation": {"metadata.annotations[aegrail.io/ca-generation]", "{metadata: {annotations: {aegrail.io/ca-generation: '1'}}}"},
		"the token": {
			"spec.volumes[t].projected.sources[0].serviceAccountToken.audience",
			"{spec: {containers: [], volumes: [{name: t, projected: {sources: [{serviceAccountToken: {audience: aegrail-control, path: t}}]}}]}}",
		},
	} {
		wantField(t, what, CheckUnmarked(podOf(t, row.pod)), row.field)
	}
	if err := CheckUnmarked(readPod(t, "rich")); err != nil {
		t.Error(err)
	}
}

// running is an injected pod whose engine is up, with the ephemeral container that fields describe.
func running(t *testing.T, name, fields string) *corev1.Pod {
	t.Helper()
	p := injected(t, name)
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: ContainerInit, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		{Name: ContainerEngine, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
	}
	if fields != "" {
		fields = ", " + fields
	}
	e := corev1.EphemeralContainer{}
	if err := yaml.UnmarshalStrict([]byte("{name: debugger, image: 'busybox:1'"+fields+"}"), &e); err != nil {
		t.Fatal(err)
	}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{e}
	return p
}

func TestAnEphemeralContainerIsHeldLikeTheAgent(t *testing.T) {
	p := running(t, "simple", "")
	if err := CheckEphemeral(p); err == nil {
		t.Error("is let in as it was asked for")
	}
	out, err := Ephemeral(p)
	if err != nil {
		t.Fatal(err)
	}
	got := out.Spec.EphemeralContainers[0]
	agent := container(t, injected(t, "simple"), "agent")
	if diff := cmp.Diff(agent.SecurityContext, got.SecurityContext); diff != "" {
		t.Errorf("it may do something else than the agent:\n%s", diff)
	}
	if diff := cmp.Diff(agent.Env, got.Env); diff != "" {
		t.Errorf("it trusts something else than the agent:\n%s", diff)
	}
	if diff := cmp.Diff(agent.VolumeMounts, got.VolumeMounts); diff != "" {
		t.Errorf("it mounts something else than the agent:\n%s", diff)
	}
	out.Spec.EphemeralContainers = p.Spec.EphemeralContainers
	if diff := cmp.Diff(p, out); diff != "" {
		t.Errorf("more than ephemeral containers is changed:\n%s", diff)
	}

	out, err = Ephemeral(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckEphemeral(out); err != nil {
		t.Errorf("what Ephemeral returned is refused: %v", err)
	}
	again, err := Ephemeral(out)
	if diff := cmp.Diff(out, again); diff != "" || err != nil {
		t.Errorf("it changes again: %v\n%s", err, diff)
	}
}

func TestAnEphemeralContainerIsRefused(t *testing.T) {
	for what, row := range map[string]struct{ fields, field string }{
		"joining the engine":   {"targetContainerName: aegrail-engine", "spec.ephemeralContainers[debugger].targetContainerName"},
		"with the token":       {"volumeMounts: [{name: aegrail-token, mountPath: /t}]", "spec.ephemeralContainers[debugger].volumeMounts[/t]"},
		"with the log":         {"volumeMounts: [{name: aegrail-log, mountPath: /l}]", "spec.ephemeralContainers[debugger].volumeMounts[/l]"},
		"with the way out":     {"volumeMounts: [{name: aegrail-passage, mountPath: /p}]", "spec.ephemeralContainers[debugger].volumeMounts[/p]"},
		"over the bundle":      {"volumeMounts: [{name: work, mountPath: /etc/aegrail/ca}]", "spec.ephemeralContainers[debugger].volumeMounts[/etc/aegrail/ca]"},
		"as the engine":        {"securityContext: {runAsUser: 2000123456}", "spec.ephemeralContainers[debugger].securityContext.runAsUser"},
		"privileged":           {"securityContext: {privileged: true}", "spec.ephemeralContainers[debugger].securityContext.privileged"},
		"tracing":              {"securityContext: {capabilities: {add: [SYS_PTRACE]}}", "spec.ephemeralContainers[debugger].securityContext.capabilities.add"},
		"changing the network": {"securityContext: {capabilities: {add: [NET_ADMIN]}}", "spec.ephemeralContainers[debugger].securityContext.capabilities.add"},
		"with all of /proc":    {"securityContext: {procMount: Unmasked}", "spec"},
	} {
		_, err := Ephemeral(running(t, "simple", row.fields))
		wantField(t, what, err, row.field)
		wantField(t, what, CheckEphemeral(running(t, "simple", row.fields)), row.field)
	}
}

func TestAnEphemeralContainerWaitsForTheEngine(t *testing.T) {
	for what, edit := range map[string]func(*corev1.ContainerStatus){
		"unknown":     func(s *corev1.ContainerStatus) { s.Name = "other" },
		"not started": func(s *corev1.ContainerStatus) { s.Started = new(false) },
		"not said":    func(s *corev1.ContainerStatus) { s.Started = nil },
		"waiting": func(s *corev1.ContainerStatus) {
			s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}
		},
	} {
		p := running(t, "simple", "")
		edit(&p.Status.InitContainerStatuses[1])
		_, err := Ephemeral(p)
		wantField(t, what, err, "spec.ephemeralContainers")
	}
	p := injected(t, "simple")
	if out, err := Ephemeral(p); err != nil || len(out.Spec.EphemeralContainers) != 0 {
		t.Errorf("a pod without any is refused: %v", err)
	}
}

func TestAnEphemeralContainerOfAnAdvisoryPodGetsTheProxy(t *testing.T) {
	c := config()
	c.Enforcement = Advisory
	p := running(t, "simple", "")
	advisory, err := Pod(readPod(t, "simple"), c)
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.InitContainers = advisory.Spec.InitContainers
	out, err := Ephemeral(p)
	if err != nil {
		t.Fatal(err)
	}
	if got := effective(out.Spec.EphemeralContainers[0].Env)["HTTPS_PROXY"].Value; !strings.HasSuffix(got, ":15080") {
		t.Errorf("HTTPS_PROXY=%s", got)
	}
}
