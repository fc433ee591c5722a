package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/arpitcoder/aegrail-engine/internal/trustenv"
)

// dropped are the capabilities that no container but ours keeps, whatever it is: NET_ADMIN and NET_RAW change the rules, send
// packets past them or set the mark that they let out, SYS_PTRACE leads into another process, and the others to another user and
// so to an engine's (FirstUID says what that would do).
func dropped() []corev1.Capability {
	return []corev1.Capability{"SETUID", "SETGID", "CHOWN", "SETFCAP", "NET_RAW", "NET_ADMIN", "SYS_PTRACE"}
}

// harden makes of every container that is not ours what may run beside the engine.
func harden(spec *corev1.PodSpec, c *Config) error {
	var failed error
	each(spec, func(_ *field.Path, have *corev1.Container) {
		if failed == nil {
			failed = beside(have, spec.SecurityContext, c.Enforcement)
		}
	})
	return failed
}

// beside makes of have what may run beside the engine. pod is what it inherits from.
func beside(have *corev1.Container, pod *corev1.PodSecurityContext, e Enforcement) (err error) {
	confine(have, pod)
	if !slices.ContainsFunc(have.VolumeMounts, isCAMount) {
		have.VolumeMounts = append(have.VolumeMounts, caMount())
	}
	have.Env, err = environment(have.Env, e)
	return err
}

// confine sets have's securityContext. pod is what it inherits from.
func confine(have *corev1.Container, pod *corev1.PodSecurityContext) {
	if have.SecurityContext == nil {
		have.SecurityContext = new(corev1.SecurityContext)
	}
	sc := have.SecurityContext
	sc.AllowPrivilegeEscalation = new(false)
	if sc.Capabilities == nil {
		sc.Capabilities = new(corev1.Capabilities)
	}
	// Only this spelling is sure to mean everything to every runtime.
	if !slices.Contains(sc.Capabilities.Drop, "ALL") {
		for _, name := range dropped() {
			if !slices.Contains(sc.Capabilities.Drop, name) {
				sc.Capabilities.Drop = append(sc.Capabilities.Drop, name)
			}
		}
	}
	if sc.SeccompProfile == nil && (pod == nil || pod.SeccompProfile == nil) {
		sc.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
}

const (
	javaOptions = "JAVA_TOOL_OPTIONS"
	usersJava   = "AEGRAIL_USERS_JAVA_TOOL_OPTIONS" // what the user has from elsewhere, so that ours can come after it
)

// environment is env with the variables of trustenv at its end. Those that take their value from elsewhere are kept as they
// are, unless they are of the ones that are set.
func environment(env []corev1.EnvVar, e Enforcement) ([]corev1.EnvVar, error) {
	settings := trustenv.Settings{BundlePEM: PathCA + "/" + BundlePEM, BundleP12: PathCA + "/" + BundleP12, P12Password: BundlePassword}
	switch e {
	case Advisory:
		settings.ProxyURL = fmt.Sprintf("http://127.0.0.1:%d", PortProxy)
	default:
		settings.Redirected = true
	}
	env = slices.Clone(env)
	for i, v := range slices.Backward(env) {
		if v.Name != javaOptions {
			continue
		}
		if v.ValueFrom != nil {
			// Kubelet expands a variable that comes before. One that may be missing is refused: it would stay as it is written.
			env[i].Name = usersJava
			env = append(env, corev1.EnvVar{Name: javaOptions, Value: "$(" + usersJava + ")"})
		}
		break // of several the last counts
	}
	base := make([]string, 0, len(env))
	for _, v := range env {
		base = append(base, v.Name+"="+v.Value)
	}
	set, err := trustenv.Build(base, settings)
	if err != nil {
		return nil, err
	}
	// What is kept comes first and in its order, what is set after it.
	var out []corev1.EnvVar
	for i, v := range env {
		if len(set) > 0 && set[0] == base[i] {
			out, set = append(out, v), set[1:]
		}
	}
	for _, kv := range set {
		name, value, _ := strings.Cut(kv, "=")
		out = append(out, corev1.EnvVar{Name: name, Value: value})
	}
	return out, nil
}
