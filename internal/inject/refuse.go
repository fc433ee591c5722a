package inject

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// refuse lists all that keeps pod from being held.
func refuse(pod *corev1.Pod, c *Config) Refusals {
	var r Refusals
	r.level(c)
	r.host(pod)
	r.resolver(&pod.Spec)
	r.users(pod.Spec.SecurityContext, field.NewPath("spec", "securityContext"))
	before := injectedBefore(pod, c)
	r.volumes(pod, c, before)
	r.names(pod, c, before)
	secrets := keySecrets(&pod.Spec, c.Plain.CASecret)
	each(&pod.Spec, func(at *field.Path, have *corev1.Container) { r.container(at, have, secrets) })
	r.ephemerals(&pod.Spec)
	r.baseline(pod)
	return r
}

// injectedBefore reports that what bears our names in pod is ours, to be written anew: the pod comes again, or is a copy of one, without its
// labels (kubectl debug --copy-to).
func injectedBefore(pod *corev1.Pod, c *Config) bool {
	return Marked(pod) || slices.ContainsFunc(pod.Spec.InitContainers, func(have corev1.Container) bool {
		return have.Name == ContainerEngine && have.Image == c.Image
	})
}

// level explains what the API server would say less well after us.
func (r *Refusals) level(c *Config) {
	if c.Enforcement != Transparent || c.PodSecurity == "" || c.PodSecurity == "privileged" {
		return
	}
	*r = append(*r, &Refusal{
		Field:   "namespace label pod-security.kubernetes.io/enforce",
		Problem: fmt.Sprintf("%s does not let aegrail-init add NET_ADMIN, which makes the redirect rules of the pod", c.PodSecurity),
		Fix: "set it to privileged (agents' containers are held to baseline here, whatever it says; warn and audit may stay as they are), " +
			"or install with enforcement advisory, which holds nobody",
	})
}

// host refuses what the pod would share with its node or among its containers.
func (r *Refusals) host(pod *corev1.Pod) {
	at, spec := field.NewPath("spec"), &pod.Spec
	if spec.HostNetwork {
		r.add(at.Child("hostNetwork"), "the pod would have its node's network, where it cannot be redirected", "remove it")
	}
	if spec.HostPID {
		r.add(at.Child("hostPID"), "the pod would see its node's processes, engines among them", "remove it")
	}
	if spec.HostIPC {
		r.add(at.Child("hostIPC"), "the pod would share memory with its node", "remove it")
	}
	if spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace {
		r.add(at.Child("shareProcessNamespace"), "the agent would see the engine's process", "remove it (kubectl debug: --share-processes=false)")
	}
	if spec.HostUsers != nil && !*spec.HostUsers {
		r.add(at.Child("hostUsers"), fmt.Sprintf("in a user namespace of its own the pod has no user %d and above, one of which the engine runs as", FirstUID), "remove it")
	}
	const windows = "Windows pods have no redirect rules"
	if spec.OS != nil && spec.OS.Name != corev1.Linux {
		r.add(at.Child("os", "name"), windows, "run the agent on Linux, or behind the gateway")
	}
	if os, set := spec.NodeSelector[corev1.LabelOSStable]; set && os != string(corev1.Linux) {
		r.add(at.Child("nodeSelector").Key(corev1.LabelOSStable), windows, "run the agent on Linux, or behind the gateway")
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		r.add(field.NewPath("metadata", "annotations").Key(corev1.MirrorPodAnnotationKey), "a static pod runs before anybody can hold it", "make it a Deployment or a DaemonSet")
	}
}

// resolver refuses a resolver of the pod's choice: the engine has the pod's resolv.conf, and would ask it for every name that is allowed.
func (r *Refusals) resolver(spec *corev1.PodSpec) {
	const problem = "the engine, which has the pod's resolv.conf, would ask a server that the pod names; agents are answered by the engine"
	if spec.DNSPolicy == corev1.DNSNone {
		r.add(field.NewPath("spec", "dnsPolicy"), problem, "remove it; searches and options of dnsConfig may stay")
	}
	if spec.DNSConfig != nil && len(spec.DNSConfig.Nameservers) > 0 {
		r.add(field.NewPath("spec", "dnsConfig", "nameservers"), problem, "remove them; searches and options may stay")
	}
}

// users keeps the pod's own users and groups out of the engines' range.
func (r *Refusals) users(sc *corev1.PodSecurityContext, at *field.Path) {
	if sc == nil {
		return
	}
	r.user(at.Child("runAsUser"), sc.RunAsUser)
	r.user(at.Child("runAsGroup"), sc.RunAsGroup)
	r.user(at.Child("fsGroup"), sc.FSGroup)
	for i := range sc.SupplementalGroups {
		r.user(at.Child("supplementalGroups").Index(i), &sc.SupplementalGroups[i])
	}
}

func (r *Refusals) user(at *field.Path, id *int64) {
	if id != nil && engineUID(*id) {
		r.add(at, fmt.Sprintf("%d is of the engines' range %d to %d, whose users share an engine's limits on the node", *id, FirstUID, LastUID), "choose another number")
	}
}

// volumes refuses what could hold the engine's token, key or log, and what leads to the node's files.
func (r *Refusals) volumes(pod *corev1.Pod, c *Config, before bool) {
	for _, v := range pod.Spec.Volumes {
		at := field.NewPath("spec", "volumes").Key(v.Name)
		if OurVolume(v.Name) {
			if !before {
				r.add(at, "the name is the engine's", "choose another name")
			}
			continue
		}
		r.source(at, v)
		r.tokens(at, v)
		if v.Projected != nil {
			for i, source := range v.Projected.Sources {
				if source.Secret != nil && isSecret(source.Secret.Name, c.Plain.CASecret) {
					r.add(at.Child("projected", "sources").Index(i).Child("secret"), keyProblem, "remove it")
				}
			}
		}
		if v.Secret != nil && isSecret(v.Secret.SecretName, c.Plain.CASecret) {
			r.add(at.Child("secret"), keyProblem, "remove it")
		}
		if v.PersistentVolumeClaim != nil && c.Log.Claim != "" && v.PersistentVolumeClaim.ClaimName == c.Log.Claim {
			r.add(at.Child("persistentVolumeClaim"), "the claim is the audit log's home", "use another one")
		}
	}
}

// source refuses volumes but those that the API server or the cluster's operator fills. All others are mounted by the node, over its own network,
// from where the pod says. A kind that only a newer Kubernetes knows is seen here as none: the API server makes an emptyDir of what has none.
func (r *Refusals) source(at *field.Path, v corev1.Volume) {
	if v.HostPath != nil {
		r.add(at.Child("hostPath"), "a node's files lead to its containers, engines and their tokens among them", "use an emptyDir, a ConfigMap or a PersistentVolumeClaim")
		return
	}
	set := v.VolumeSource
	set.ConfigMap, set.DownwardAPI, set.EmptyDir, set.Ephemeral, set.PersistentVolumeClaim, set.Projected, set.Secret = nil, nil, nil, nil, nil, nil, nil
	switch none := (corev1.VolumeSource{}); {
	case v.VolumeSource == none:
		r.add(at, "its kind is not known here, so that it may be mounted from anywhere", "use a PersistentVolumeClaim, or write emptyDir: {}")
	case set == none:
		return
	}
	// What is left is named as the pod names it.
	fields := reflect.ValueOf(set)
	for i := range fields.NumField() {
		if !fields.Field(i).IsNil() {
			name, _, _ := strings.Cut(fields.Type().Field(i).Tag.Get("json"), ",")
			r.add(at.Child(name), "the node mounts it over its own network, which is not redirected, from where the pod says", "use a PersistentVolumeClaim")
		}
	}
}

// tokens refuses tokens for control.
func (r *Refusals) tokens(at *field.Path, v corev1.Volume) {
	if v.Projected == nil {
		return
	}
	for i, source := range v.Projected.Sources {
		if source.ServiceAccountToken != nil && source.ServiceAccountToken.Audience == TokenAudience {
			r.add(at.Child("projected", "sources").Index(i).Child("serviceAccountToken", "audience"), "a token for "+TokenAudience+" speaks for an engine", "remove it")
		}
	}
}

const keyProblem = "the Secret holds the key of the agents' CA, and who has it can impersonate any server"

func isSecret(name, key string) bool { return key != "" && name == key }

// keySecrets are the Secrets with a CA's key that the pod's engine mounts: by c, or, of a pod that is injected already, as it stands there.
func keySecrets(spec *corev1.PodSpec, configured string) []string {
	var out []string
	if configured != "" {
		out = append(out, configured)
	}
	for _, v := range spec.Volumes {
		if v.Name == VolumeKey && v.Secret != nil && !slices.Contains(out, v.Secret.SecretName) {
			out = append(out, v.Secret.SecretName)
		}
	}
	return out
}

// names refuses containers that bear our names and are not ours.
func (r *Refusals) names(pod *corev1.Pod, c *Config, before bool) {
	const fix = "remove it: it is added when the pod is made"
	for _, have := range pod.Spec.InitContainers {
		image := c.Image
		if have.Name == ContainerInit && c.InitImage != "" {
			image = c.InitImage
		}
		at := field.NewPath("spec", "initContainers").Key(have.Name)
		switch {
		case !Ours(have.Name):
		case !before:
			r.add(at, "the name is the engine's", fix)
		case have.Image != image:
			r.add(at.Child("image"), fmt.Sprintf("%q is not the engine's image", have.Image), fix)
		}
	}
	for _, have := range pod.Spec.Containers {
		if Ours(have.Name) {
			r.add(field.NewPath("spec", "containers").Key(have.Name), "the name is the engine's", fix)
		}
	}
}

// container refuses what a container must not have beside the engine.
func (r *Refusals) container(at *field.Path, have *corev1.Container, secrets []string) {
	if sc := have.SecurityContext; sc != nil {
		r.context(at.Child("securityContext"), sc)
	}
	for _, p := range have.Ports {
		if slices.Contains([]int32{PortTransparent, PortAdmin, PortDNS, PortProxy}, p.ContainerPort) {
			r.add(at.Child("ports"), fmt.Sprintf("port %d is the engine's", p.ContainerPort), "choose another port")
		}
	}
	for _, m := range have.VolumeMounts {
		r.mount(at.Child("volumeMounts").Key(m.MountPath), m)
	}
	for _, d := range have.VolumeDevices {
		if slices.Contains(engineOnly(), d.Name) {
			r.add(at.Child("volumeDevices").Key(d.DevicePath), "the volume "+d.Name+" is the engine's alone", "remove it")
		}
	}
	for _, v := range have.Env {
		r.variable(at.Child("env").Key(v.Name), v, secrets)
	}
	for i, from := range have.EnvFrom {
		if from.SecretRef != nil && slices.Contains(secrets, from.SecretRef.Name) {
			r.add(at.Child("envFrom").Index(i).Child("secretRef"), keyProblem, "remove it")
		}
	}
}

func (r *Refusals) mount(at *field.Path, m corev1.VolumeMount) {
	where := path.Clean("/" + m.MountPath)
	switch {
	case slices.Contains(engineOnly(), m.Name):
		r.add(at, "the volume "+m.Name+" is the engine's alone", "remove it")
	case !isCAMount(m) && (where == PathCA || strings.HasPrefix(where, PathCA+"/")):
		r.add(at, "the bundle of CAs is mounted at "+PathCA, "choose another path")
	}
}

func (r *Refusals) variable(at *field.Path, v corev1.EnvVar, secrets []string) {
	if v.ValueFrom == nil {
		return
	}
	if ref := v.ValueFrom.SecretKeyRef; ref != nil && slices.Contains(secrets, ref.Name) {
		r.add(at.Child("valueFrom", "secretKeyRef"), keyProblem, "remove it")
	}
	if v.Name == javaOptions && optional(v.ValueFrom) {
		r.add(at.Child("valueFrom"), "the engine's trust store is put after a value that may be missing, which no JVM would start with", "write the value here, or a reference that is not optional")
	}
}

func optional(from *corev1.EnvVarSource) bool {
	is := func(b *bool) bool { return b != nil && *b }
	switch {
	case from.ConfigMapKeyRef != nil:
		return is(from.ConfigMapKeyRef.Optional)
	case from.SecretKeyRef != nil:
		return is(from.SecretKeyRef.Optional)
	case from.FileKeyRef != nil:
		return is(from.FileKeyRef.Optional)
	default:
		return false
	}
}
