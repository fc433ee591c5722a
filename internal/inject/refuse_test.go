package inject

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// testPod is a pod with spec, whose container app has the fields in app; both are YAML flow mappings without their braces.
func testPod(t *testing.T, spec, app string) *corev1.Pod {
	t.Helper()
	if spec != "" {
		spec += ", "
	}
	if app != "" {
		app = ", " + app
	}
	pod := new(corev1.Pod)
	text := "{metadata: {name: p, namespace: support}, spec: {" + spec + "containers: [{name: app, image: a:1" + app + "}]}}"
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return pod
}

// refusal is a pod that is refused, and what is said of it.
type refusal struct {
	spec, app string
	field     string // of the one Refusal
	says      string // part of what is wrong, or of the fix
}

func refusals() []refusal {
	const sc = "spec.containers[app].securityContext"
	return []refusal{
		{"hostNetwork: true", "", "spec.hostNetwork", "remove it"},
		{"hostPID: true", "", "spec.hostPID", "node's processes"},
		{"hostIPC: true", "", "spec.hostIPC", "share memory"},
		{"shareProcessNamespace: true", "", "spec.shareProcessNamespace", "--share-processes=false"},
		{"hostUsers: false", "", "spec.hostUsers", "user namespace"},
		{"dnsPolicy: None, dnsConfig: {searches: [a.example]}", "", "spec.dnsPolicy", "searches and options"},
		{"dnsConfig: {nameservers: [192.0.2.1], options: [{name: ndots}]}", "", "spec.dnsConfig.nameservers", "remove them"},
		{"os: {name: windows}", "", "spec.os.name", "on Linux"},
		{"nodeSelector: {kubernetes.io/os: windows}", "", "spec.nodeSelector[kubernetes.io/os]", "on Linux"},

		// Users and groups.
		{"securityContext: {runAsUser: 2000000000}", "", "spec.securityContext.runAsUser", "engines' range"},
		{"securityContext: {runAsGroup: 2000999999}", "", "spec.securityContext.runAsGroup", "choose another number"},
		{"securityContext: {fsGroup: 2000123456}", "", "spec.securityContext.fsGroup", "engines' range"},
		{"securityContext: {supplementalGroups: [5, 2000123456]}", "", "spec.securityContext.supplementalGroups[1]", "engines' range"},
		{"", "securityContext: {runAsUser: 2000123456}", sc + ".runAsUser", "engines' range"},
		{"", "securityContext: {runAsGroup: 2000123456}", sc + ".runAsGroup", "engines' range"},
		{"initContainers: [{name: first, image: b, securityContext: {runAsUser: 2000123456}}]", "", "spec.initContainers[first].securityContext.runAsUser", "engines' range"},

		// Rights.
		{"", "securityContext: {privileged: true}", sc + ".privileged", "undo the redirect"},
		{"", "securityContext: {allowPrivilegeEscalation: true}", sc + ".allowPrivilegeEscalation", "set it to false"},
		{"", "securityContext: {capabilities: {add: [NET_ADMIN]}}", sc + ".capabilities.add", "service mesh"},
		{"", "securityContext: {capabilities: {add: [NET_RAW]}}", sc + ".capabilities.add", "NET_RAW"},
		{"", "securityContext: {capabilities: {add: [SYS_ADMIN]}}", sc + ".capabilities.add", "what may be added is AUDIT_WRITE"},
		{"", "securityContext: {capabilities: {add: [SYS_PTRACE]}}", sc + ".capabilities.add", "--profile=baseline"},
		{"", "securityContext: {capabilities: {add: [SETUID]}}", sc + ".capabilities.add", "SETUID"},
		{"", "securityContext: {capabilities: {add: [SETGID]}}", sc + ".capabilities.add", "SETGID"},
		{"", "securityContext: {capabilities: {add: [CHOWN]}}", sc + ".capabilities.add", "CHOWN"},
		{"", "securityContext: {capabilities: {add: [SETFCAP]}}", sc + ".capabilities.add", "SETFCAP"},
		{"", "securityContext: {capabilities: {add: [ALL]}}", sc + ".capabilities.add", "ALL"},
		{"", "securityContext: {capabilities: {add: [SYS_MODULE]}}", sc + ".capabilities.add", "SYS_MODULE"},
		{"", "securityContext: {capabilities: {add: [BPF]}}", sc + ".capabilities.add", "BPF"},
		{"", "securityContext: {capabilities: {add: [DAC_READ_SEARCH]}}", sc + ".capabilities.add", "DAC_READ_SEARCH"},
		{"", "securityContext: {capabilities: {add: [setuid]}}", sc + ".capabilities.add", "setuid"},           // containerd takes it for SETUID
		{"", "securityContext: {capabilities: {add: [CAP_NET_ADMIN]}}", sc + ".capabilities.add", "NET_ADMIN"}, // CRI-O does
		{"initContainers: [{name: istio-init, image: i, securityContext: {capabilities: {add: [NET_ADMIN]}}}]", "", "spec.initContainers[istio-init].securityContext.capabilities.add", "leave the pod out of the mesh"},

		// What Pod Security's baseline forbids, where nothing above does.
		{"", "securityContext: {procMount: Unmasked}", "spec", "procMount"},
		{"", "securityContext: {seccompProfile: {type: Unconfined}}", "spec", "seccomp"},
		{"securityContext: {seccompProfile: {type: Unconfined}}", "", "spec", "seccomp"},
		{"", "securityContext: {appArmorProfile: {type: Unconfined}}", "spec", "AppArmor"},
		{"", "securityContext: {seLinuxOptions: {type: spc_t}}", "spec", "seLinux"},
		{"securityContext: {sysctls: [{name: net.ipv4.ip_forward, value: '1'}]}", "", "spec", "sysctls"},
		{"securityContext: {sysctls: [{name: net.ipv4.conf.all.route_localnet, value: '1'}]}", "", "spec", "sysctls"},
		{"securityContext: {sysctls: [{name: net.ipv4.tcp_fwmark_accept, value: '1'}]}", "", "spec", "sysctls"}, // an accepted socket would have the engine's mark
		{"securityContext: {sysctls: [{name: net.ipv4.fwmark_reflect, value: '1'}]}", "", "spec", "sysctls"},
		{"", "ports: [{containerPort: 80, hostPort: 80}]", "spec", "hostPort"},
		{"", "livenessProbe: {httpGet: {port: 80, host: evil.example}}", "spec", "probe"},
		{"", "lifecycle: {postStart: {httpGet: {port: 80, host: evil.example}}}", "spec", "lifecycle"},
		{"", "securityContext: {windowsOptions: {hostProcess: true}}", "spec", "hostProcess"},

		// Ports, names, volumes.
		{"", "ports: [{containerPort: 15001}]", "spec.containers[app].ports", "15001"},
		{"", "ports: [{containerPort: 80}, {containerPort: 15020}]", "spec.containers[app].ports", "15020"},
		{"", "ports: [{containerPort: 15053, protocol: UDP}]", "spec.containers[app].ports", "15053"},
		{"", "ports: [{containerPort: 15080}]", "spec.containers[app].ports", "15080"},
		{"initContainers: [{name: aegrail-engine, image: 'evil:1'}]", "", "spec.initContainers[aegrail-engine]", "the engine's"},
		{"initContainers: [{name: aegrail-init, image: 'registry.example/aegrail-engine:1.0.0'}]", "", "spec.initContainers[aegrail-init]", "added when the pod is made"},
		{"volumes: [{name: aegrail-log, emptyDir: {}}]", "", "spec.volumes[aegrail-log]", "choose another name"},
		{"volumes: [{name: aegrail-key, emptyDir: {}}]", "", "spec.volumes[aegrail-key]", "choose another name"},
		{"volumes: [{name: h, hostPath: {path: /}}]", "", "spec.volumes[h].hostPath", "emptyDir"},
		{"volumes: [{name: h, hostPath: {path: /run/containerd/containerd.sock}}]", "", "spec.volumes[h].hostPath", "tokens"},
		{"volumes: [{name: h, hostPath: {path: /etc/ssl/certs}}]", "", "spec.volumes[h].hostPath", "emptyDir"},
		{"volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: a}}, {serviceAccountToken: {audience: aegrail-control, path: b}}]}}]", "", "spec.volumes[t].projected.sources[1].serviceAccountToken.audience", "speaks for an engine"},
		{"", "volumeMounts: [{name: aegrail-token, mountPath: /t}]", "spec.containers[app].volumeMounts[/t]", "the engine's alone"},
		{"", "volumeMounts: [{name: aegrail-log, mountPath: /l, subPath: x}]", "spec.containers[app].volumeMounts[/l]", "the engine's alone"},
		{"", "volumeMounts: [{name: aegrail-passage, mountPath: /p, readOnly: true}]", "spec.containers[app].volumeMounts[/p]", "the engine's alone"},
		{"initContainers: [{name: first, image: b, volumeMounts: [{name: aegrail-passage, mountPath: /p}]}]", "", "spec.initContainers[first].volumeMounts[/p]", "the engine's alone"},
		{"volumes: [{name: aegrail-passage, emptyDir: {}}]", "", "spec.volumes[aegrail-passage]", "choose another name"},
		{"", "volumeDevices: [{name: aegrail-log, devicePath: /dev/l}]", "spec.containers[app].volumeDevices[/dev/l]", "the engine's alone"},
		{"volumes: [{name: own, emptyDir: {}}]", "volumeMounts: [{name: own, mountPath: /etc/aegrail/ca}]", "spec.containers[app].volumeMounts[/etc/aegrail/ca]", "choose another path"},
		{"volumes: [{name: own, emptyDir: {}}]", "volumeMounts: [{name: own, mountPath: /etc//aegrail/x/../ca/}]", "spec.containers[app].volumeMounts[/etc//aegrail/x/../ca/]", "choose another path"},
		{"volumes: [{name: own, emptyDir: {}}]", "volumeMounts: [{name: own, mountPath: etc/aegrail/ca/ca-bundle.pem, subPath: x}]", "spec.containers[app].volumeMounts[etc/aegrail/ca/ca-bundle.pem]", "choose another path"},
		{"", "env: [{name: JAVA_TOOL_OPTIONS, valueFrom: {configMapKeyRef: {name: j, key: k, optional: true}}}]", "spec.containers[app].env[JAVA_TOOL_OPTIONS].valueFrom", "not optional"},
		{"", "env: [{name: JAVA_TOOL_OPTIONS, valueFrom: {secretKeyRef: {name: j, key: k, optional: true}}}]", "spec.containers[app].env[JAVA_TOOL_OPTIONS].valueFrom", "not optional"},
		{"", "env: [{name: JAVA_TOOL_OPTIONS, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k, optional: true}}}]", "spec.containers[app].env[JAVA_TOOL_OPTIONS].valueFrom", "not optional"},

		// Ephemeral containers that join the engine's processes.
		{"ephemeralContainers: [{name: d, image: b, targetContainerName: aegrail-engine}]", "", "spec.ephemeralContainers[d].targetContainerName", "name another"},
		{"ephemeralContainers: [{name: aegrail-init, image: b}]", "", "spec.ephemeralContainers[aegrail-init]", "choose another name"},
	}
}

func TestWhatCannotBeHeldIsRefusedWithFieldAndFix(t *testing.T) {
	for _, row := range refusals() {
		pod := testPod(t, row.spec, row.app)
		for _, enforcement := range []Enforcement{Transparent, Advisory} {
			c := config()
			c.Enforcement = enforcement
			out, err := Pod(pod, c)
			one := new(Refusal)
			if out != nil || !errors.As(err, &one) {
				t.Errorf("%s %s: is injected, %v", row.spec, row.app, err)
				continue
			}
			if one.Field != row.field || !strings.Contains(one.Error(), row.says) || one.Fix == "" {
				t.Errorf("%s %s: is refused with %q, which should name %s and say %q", row.spec, row.app, err, row.field, row.says)
			}
			if all := (Refusals)(nil); !errors.As(err, &all) || len(all) != 1 {
				t.Errorf("%s %s: %d refusals: %v", row.spec, row.app, len(all), err)
			}
		}
	}
}

func TestWhatDoesNoHarmIsLetIn(t *testing.T) {
	for _, row := range []struct{ spec, app string }{
		{"", "securityContext: {runAsUser: 0}"},
		{"", "securityContext: {runAsUser: 1999999999, runAsGroup: 2001000000}"},
		{"schedulingGates: [{name: a.example/wait}]", ""}, // whatever the image is made for meanwhile
		{"", "securityContext: {privileged: false, allowPrivilegeEscalation: false}"},
		{"", "securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}"},
		{"hostUsers: true, os: {name: linux}, nodeSelector: {kubernetes.io/os: linux}", ""},
		{"shareProcessNamespace: false", ""},
		{"dnsPolicy: Default, dnsConfig: {searches: [a.example], options: [{name: ndots, value: '1'}]}, hostAliases: [{ip: 192.0.2.1, hostnames: [a.example]}]", ""},
		{"securityContext: {sysctls: [{name: net.ipv4.tcp_keepalive_time, value: '60'}]}", ""},
		{"volumes: [{name: t, projected: {sources: [{serviceAccountToken: {audience: vault, path: b}}]}}]", "volumeMounts: [{name: t, mountPath: /t}]"},
		{"volumes: [{name: aegrail, emptyDir: {}}]", "volumeMounts: [{name: aegrail, mountPath: /etc/aegrail/case}]"},
		{"", "env: [{name: JAVA_TOOL_OPTIONS, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]"},
		{"", "livenessProbe: {httpGet: {port: 80}}"},
	} {
		pod := testPod(t, row.spec, row.app)
		out, err := Pod(pod, config())
		if err != nil {
			t.Errorf("%s %s: %v", row.spec, row.app, err)
			continue
		}
		if err := Check(out, config()); err != nil {
			t.Errorf("%s %s: injected and then refused: %v", row.spec, row.app, err)
		}
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	_, err := Pod(testPod(t, "hostNetwork: true, volumes: [{name: h, hostPath: {path: /}}]", "securityContext: {privileged: true}"), config())
	var all Refusals
	if !errors.As(err, &all) || len(all) != 3 {
		t.Fatal(err)
	}
	for _, want := range []string{"3 reasons:\n  spec.hostNetwork: ", "\n  spec.volumes[h].hostPath: ", "\n  spec.containers[app].securityContext.privileged: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestANamespaceThatPodSecurityHoldsIsToldItsWaysOut(t *testing.T) {
	for _, level := range []string{"baseline", "restricted", "none-of-them"} {
		c := config()
		c.PodSecurity = level
		_, err := Pod(readPod(t, "simple"), c)
		if err == nil {
			t.Fatalf("%s: injected, and the API server will refuse it", level)
		}
		for _, want := range []string{"pod-security.kubernetes.io/enforce", level, "NET_ADMIN", "privileged", "advisory"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", level, err, want)
			}
		}
		c.Enforcement = Advisory
		if _, err := Pod(readPod(t, "advisory"), c); err != nil {
			t.Errorf("%s, advisory: %v", level, err)
		}
	}
	c := config()
	c.PodSecurity = "privileged"
	if _, err := Pod(readPod(t, "simple"), c); err != nil {
		t.Error(err)
	}
}

func TestPlainModesKeyIsTheEnginesAlone(t *testing.T) {
	c := config()
	goldens()["plain"](&c)
	for _, row := range []refusal{
		{"volumes: [{name: s, secret: {secretName: aegrail-ca}}]", "", "spec.volumes[s].secret", "impersonate"},
		{"volumes: [{name: s, projected: {sources: [{secret: {name: aegrail-ca}}]}}]", "", "spec.volumes[s].projected.sources[0].secret", "impersonate"},
		{"", "env: [{name: K, valueFrom: {secretKeyRef: {name: aegrail-ca, key: tls.key}}}]", "spec.containers[app].env[K].valueFrom.secretKeyRef", "impersonate"},
		{"", "envFrom: [{configMapRef: {name: x}}, {secretRef: {name: aegrail-ca}}]", "spec.containers[app].envFrom[1].secretRef", "impersonate"},
	} {
		_, err := Pod(testPod(t, row.spec, row.app), c)
		one := new(Refusal)
		if !errors.As(err, &one) || one.Field != row.field || !strings.Contains(one.Problem, row.says) {
			t.Errorf("%s %s: %v", row.spec, row.app, err)
		}
	}
	if _, err := Pod(testPod(t, "volumes: [{name: s, secret: {secretName: own}}]", "envFrom: [{secretRef: {name: own}}]"), c); err != nil {
		t.Error(err)
	}
}

func TestTheLogsClaimIsTheEnginesAlone(t *testing.T) {
	c := config()
	c.Log.Claim = "audit"
	_, err := Pod(testPod(t, "volumes: [{name: l, persistentVolumeClaim: {claimName: audit}}]", ""), c)
	one := new(Refusal)
	if !errors.As(err, &one) || one.Field != "spec.volumes[l].persistentVolumeClaim" {
		t.Error(err)
	}
	if _, err := Pod(testPod(t, "volumes: [{name: l, persistentVolumeClaim: {claimName: data}}]", ""), c); err != nil {
		t.Error(err)
	}
}

func TestStaticPodsAreRefused(t *testing.T) {
	pod := readPod(t, "simple")
	pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	_, err := Pod(pod, config())
	if err == nil || !strings.Contains(err.Error(), "static pod") {
		t.Error(err)
	}
}

func TestAnInjectedPodWithAnotherEngineIsRefused(t *testing.T) {
	out, err := Pod(readPod(t, "simple"), config())
	if err != nil {
		t.Fatal(err)
	}
	c := config()
	c.Image = "registry.example/aegrail-engine:1.1.0"
	_, err = Pod(out, c)
	if err == nil || !strings.Contains(err.Error(), "spec.initContainers[aegrail-engine].image") || !strings.Contains(err.Error(), "added when the pod is made") {
		t.Error(err)
	}
	copied := out.DeepCopy()
	copied.Spec.Containers = append(copied.Spec.Containers, corev1.Container{Name: ContainerEngine, Image: c.Image})
	if _, err := Pod(copied, config()); err == nil || !strings.Contains(err.Error(), "spec.containers[aegrail-engine]") {
		t.Error(err)
	}
}

// kubectl debug --copy-to makes a pod of another, and leaves out labels and annotations.
func TestACopyOfAnInjectedPodIsInjected(t *testing.T) {
	want := injected(t, "rich")
	in := want.DeepCopy()
	in.Labels, in.Annotations = nil, nil
	got, err := Pod(in, config())
	if err != nil {
		t.Fatal(err)
	}
	want.Labels = map[string]string{LabelInjected: "true"}
	want.Annotations = map[string]string{AnnotationEngineUID: want.Annotations[AnnotationEngineUID], AnnotationCAGeneration: "1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the copy is another:\n%s", diff)
	}
	in.Spec.InitContainers[1].Image = "registry.example/aegrail-engine:0.9.0"
	if _, err := Pod(in, config()); err == nil {
		t.Error("a copy with another engine is injected")
	}
}
