package inject

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What is written here spells out what the API server would default, so that a pod that comes back from it is still the same.

const (
	fileMode      = 0o644 // of files in volumes: only what mounts one can read it
	memoryForHeap = 90    // percent of the memory limit that Go's heap may have

	rulesSeconds     = 60  // until kubelet restarts an aegrail-init that does not serve
	startupSeconds   = 300 // until kubelet restarts an engine that is not ready: control may be on its way
	readinessSeconds = 5
	probeTimeout     = 3 // seconds
)

// engineOnly are the volumes that only the engine may mount; VolumePassage aegrail-init too.
func engineOnly() []string {
	return []string{VolumeToken, VolumeLog, VolumeKey, VolumePolicy, VolumePassage}
}

// volumes are ours, in a fixed order.
func (c *Config) volumes() []corev1.Volume {
	out := []corev1.Volume{configMap(VolumeCA, BundleConfigMap)}
	if c.ControlAddress != "" {
		out = append(out, corev1.Volume{Name: VolumeToken, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: new(int32(fileMode)),
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: TokenAudience, ExpirationSeconds: new(int64(TokenSeconds)), Path: TokenFile,
			}}},
		}}})
	} else {
		out = append(out, corev1.Volume{Name: VolumeKey, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: c.Plain.CASecret, DefaultMode: new(int32(fileMode)),
		}}}, configMap(VolumePolicy, c.Plain.PolicyConfigMap))
	}
	out = append(out, corev1.Volume{Name: VolumeLog, VolumeSource: c.Log.source()})
	if c.Enforcement == Transparent {
		out = append(out, corev1.Volume{Name: VolumePassage, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("2Mi")), // for a socket, which takes no room, and two small files
		}}})
	}
	return out
}

func configMap(volume, name string) corev1.Volume {
	return corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, DefaultMode: new(int32(fileMode)),
	}}}
}

func (l *LogVolume) source() corev1.VolumeSource {
	if l.Claim != "" {
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: l.Claim}}
	}
	limit := l.SizeLimit.DeepCopy()
	if limit.IsZero() {
		limit = resource.MustParse("1Gi")
	}
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}
}

// initContainer is aegrail-init: root, since the kernel asks for it, with the one capability that it needs. As a sidecar that is
// the first it has made the rules before anything else begins, and marks the engine's sockets until the engine has ended.
func (c *Config) initContainer(uid int64) corev1.Container {
	image := c.InitImage
	if image == "" {
		image = c.Image
	}
	flags := []string{
		fmt.Sprintf("--engine-uid=%d", uid), "--passage=" + PathPassage + "/" + PassageSocket,
		fmt.Sprintf("--transparent-port=%d", PortTransparent), fmt.Sprintf("--dns-port=%d", PortDNS),
		fmt.Sprintf("--protect=%d,%d", PortAdmin, PortProxy),
	}
	return corev1.Container{
		Name: ContainerInit, Image: image, ImagePullPolicy: c.pullPolicy(),
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		Command:       []string{CommandInit},
		Args:          append([]string{"serve"}, flags...),
		// What the pod sends to its own address stays in the pod.
		Env:          []corev1.EnvVar{fromField("AEGRAIL_INIT_FREE", "status.podIPs")},
		Resources:    orDefault(c.InitResources, "10m", "16Mi", "64Mi"),
		VolumeMounts: []corev1.VolumeMount{{Name: VolumePassage, MountPath: PathPassage}},
		StartupProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: append([]string{CommandInit, "check"}, flags...)}},
			PeriodSeconds: 1, TimeoutSeconds: probeTimeout, SuccessThreshold: 1, FailureThreshold: rulesSeconds,
		},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: new(int64(0)), RunAsGroup: new(int64(0)), RunAsNonRoot: new(false),
			Privileged: new(false), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// engine is the sidecar. As an init container that restarts always it is up before what follows it, and kubelet ends it after
// all of that, with a signal on which it flushes its log.
func (c *Config) engine(uid int64) corev1.Container {
	resources := orDefault(c.Resources, "50m", "64Mi", "256Mi")
	ready := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(PortAdmin), Scheme: corev1.URISchemeHTTP}}
	return corev1.Container{
		Name: ContainerEngine, Image: c.Image, ImagePullPolicy: c.pullPolicy(),
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		Command:       []string{CommandEngine},
		Args:          c.engineArgs(),
		Env:           engineEnv(resources),
		Resources:     resources,
		Ports:         []corev1.ContainerPort{{Name: "aegrail-admin", ContainerPort: PortAdmin, Protocol: corev1.ProtocolTCP}},
		VolumeMounts:  c.engineMounts(),
		StartupProbe:  &corev1.Probe{ProbeHandler: ready, PeriodSeconds: 1, TimeoutSeconds: probeTimeout, SuccessThreshold: 1, FailureThreshold: startupSeconds},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler: ready, PeriodSeconds: readinessSeconds, TimeoutSeconds: probeTimeout, SuccessThreshold: 1, FailureThreshold: 3,
		},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &uid, RunAsGroup: &uid, RunAsNonRoot: new(true),
			Privileged: new(false), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

func (c *Config) engineArgs() []string {
	args := append([]string{"serve"}, c.EngineArgs...)
	if c.ControlAddress != "" {
		args = append(args, "--control="+c.ControlAddress, "--control-ca="+PathCA+"/"+BundleControl, "--control-token="+PathToken+"/"+TokenFile)
	} else {
		args = append(args, "--ca-dir="+PathKey, "--policy="+PathPolicy+"/"+PlainPolicy)
	}
	if c.Enforcement == Transparent {
		// Both are taken on 127.0.0.1 and on ::1, where the kernel redirects to, and on no address that is reached from outside;
		// who dials them by hand in the pod is refused by the engine.
		args = append(args, "--enforcement=transparent", "--passage="+PathPassage+"/"+PassageSocket, "--listen=",
			fmt.Sprintf("--transparent-listen=127.0.0.1:%d", PortTransparent), fmt.Sprintf("--dns-listen=127.0.0.1:%d", PortDNS))
	} else {
		args = append(args, "--enforcement=advisory", fmt.Sprintf("--listen=127.0.0.1:%d", PortProxy))
	}
	args = append(args, fmt.Sprintf("--admin-listen=:%d", PortAdmin), "--audit-file="+PathLog+"/audit.log")
	if len(c.DenyCIDRs) > 0 {
		args = append(args, "--deny-cidr="+strings.Join(c.DenyCIDRs, ","))
	}
	return args
}

// agentPod is the variable with the pod's name, which the log's directory on a claim bears.
const agentPod = "AEGRAIL_ENGINE_AGENT_POD"

// engineEnv says whose engine it is, as Kubernetes vouches for it, and keeps Go's heap below the limit.
func engineEnv(r corev1.ResourceRequirements) []corev1.EnvVar {
	env := []corev1.EnvVar{
		fromField("AEGRAIL_ENGINE_AGENT_NAMESPACE", "metadata.namespace"),
		fromField("AEGRAIL_ENGINE_AGENT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
		fromField(agentPod, "metadata.name"),
		fromField("AEGRAIL_ENGINE_AGENT_CLAIMED", "metadata.labels['"+LabelIdentity+"']"),
	}
	if limit, ok := r.Limits[corev1.ResourceMemory]; ok {
		env = append(env, corev1.EnvVar{Name: "GOMEMLIMIT", Value: strconv.FormatInt(limit.Value()/100*memoryForHeap, 10)})
	}
	return env
}

func fromField(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

func (c *Config) engineMounts() []corev1.VolumeMount {
	log := corev1.VolumeMount{Name: VolumeLog, MountPath: PathLog}
	if c.Log.Claim != "" {
		log.SubPathExpr = "$(" + agentPod + ")"
	}
	mounts := []corev1.VolumeMount{caMount()}
	if c.ControlAddress != "" {
		mounts = append(mounts, corev1.VolumeMount{Name: VolumeToken, MountPath: PathToken, ReadOnly: true})
	} else {
		mounts = append(mounts, corev1.VolumeMount{Name: VolumeKey, MountPath: PathKey, ReadOnly: true}, corev1.VolumeMount{Name: VolumePolicy, MountPath: PathPolicy, ReadOnly: true})
	}
	mounts = append(mounts, log)
	if c.Enforcement == Transparent {
		mounts = append(mounts, corev1.VolumeMount{Name: VolumePassage, MountPath: PathPassage, ReadOnly: true}) // a socket can be dialled there all the same
		for _, file := range []string{PassageHosts, PassageResolver} {
			mounts = append(mounts, corev1.VolumeMount{Name: VolumePassage, MountPath: "/etc/" + file, SubPath: file, ReadOnly: true})
		}
	}
	return mounts
}

// caMount is the bundle, as every container has it.
func caMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: VolumeCA, MountPath: PathCA, ReadOnly: true}
}

func isCAMount(m corev1.VolumeMount) bool { return equality.Semantic.DeepEqual(m, caMount()) }

func (c *Config) pullPolicy() corev1.PullPolicy {
	if c.PullPolicy == "" {
		return corev1.PullIfNotPresent
	}
	return c.PullPolicy
}

// orDefault is r, or if that says nothing these quantities.
func orDefault(r corev1.ResourceRequirements, cpu, memory, memoryLimit string) corev1.ResourceRequirements {
	if len(r.Limits) > 0 || len(r.Requests) > 0 || len(r.Claims) > 0 {
		return *r.DeepCopy()
	}
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memoryLimit)},
	}
}
