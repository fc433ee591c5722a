package inject

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Enforcement is how a pod is held. The zero value is refused.
type Enforcement string

const (
	// Transparent has the kernel lead everything to the engine.
	Transparent Enforcement = "transparent"

	// Advisory sets proxy variables and enforces nothing: an agent that ignores them goes where it wants.
	Advisory Enforcement = "advisory"
)

// Config is what is injected. It is the same for all pods of a namespace and does not change: Pod and Check only read it.
type Config struct {
	Image      string            // of the engine; required
	InitImage  string            // of aegrail-init; Image if empty
	PullPolicy corev1.PullPolicy // of both; IfNotPresent if empty

	Enforcement Enforcement // required

	// ControlAddress is HOST:PORT of control's link, and the host the name in its certificate. Without it the engine is in plain
	// mode, and Plain is required.
	ControlAddress string
	Plain          Plain

	Log LogVolume

	// Resources of the engine and InitResources of aegrail-init. Those that name nothing get a request and a limit of memory.
	Resources, InitResources corev1.ResourceRequirements

	// DenyCIDRs are addresses that no agent may reach by name: pods', Services' and nodes' ranges.
	DenyCIDRs []string

	// EngineArgs are more flags of serve. Those that Pod sets come after them and win.
	EngineArgs []string

	// PodSecurity is the level that Pod Security enforces in the namespace, from its label; empty counts as privileged.
	PodSecurity string

	// CAGeneration is the newest generation of the namespace's root in its bundle. Required but in plain mode.
	CAGeneration int

	// UID draws the engine's user for one pod, as DrawUID does: required, and never from the pod.
	UID func() (uint32, error)
}

// Plain is where the engine finds CA and policy without control. Whoever may change these objects decides what agents may do,
// and whoever may read the Secret can impersonate any server to them.
type Plain struct {
	CASecret        string // with tls.crt, tls.key and ca.crt
	PolicyConfigMap string // with PlainPolicy
}

// LogVolume is the audit log's home. The zero value is an emptyDir of 1 GiB, which ends with the pod.
type LogVolume struct {
	// SizeLimit of the emptyDir. A pod that fills it is evicted, so rotation and retention belong below it.
	SizeLimit resource.Quantity

	// Claim is a PersistentVolumeClaim of the agents' namespace, in which each pod has a directory of its name. It must be
	// writable for the engine's user: by mode, or by the pod's fsGroup.
	Claim string
}

// DrawUID draws a user for an engine. It is safe for concurrent use.
func DrawUID() (uint32, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(LastUID-FirstUID+1))
	if err != nil {
		return 0, fmt.Errorf("drawing the engine's user: %w", err)
	}
	return FirstUID + uint32(n.Uint64()), nil
}

// Validate refuses what would make pods that do not hold or do not start. It is not about the pod: who reads it is the operator.
func (c *Config) Validate() error {
	switch {
	case c.Image == "":
		return fmt.Errorf("injection: no image of the engine")
	case c.Enforcement != Transparent && c.Enforcement != Advisory:
		return fmt.Errorf("injection: enforcement %q; write %s or %s", c.Enforcement, Transparent, Advisory)
	case c.UID == nil:
		return fmt.Errorf("injection: nothing draws the engine's user")
	case c.CAGeneration < 0 || c.CAGeneration == 0 && c.ControlAddress != "":
		return fmt.Errorf("injection: generation %d of the namespace's root; they begin with 1", c.CAGeneration)
	case c.ControlAddress == "" && (c.Plain.CASecret == "" || c.Plain.PolicyConfigMap == ""):
		return fmt.Errorf("injection: without control's address the engine needs a Secret with a CA and a ConfigMap with a policy")
	case c.ControlAddress != "" && c.Plain != (Plain{}):
		return fmt.Errorf("injection: control's address %s and a CA or policy of plain mode; give one of them", c.ControlAddress)
	}
	if c.ControlAddress != "" {
		if host, port, err := net.SplitHostPort(c.ControlAddress); err != nil || host == "" || port == "" {
			return fmt.Errorf("injection: control's address %q; write HOST:PORT", c.ControlAddress)
		}
	}
	for _, text := range c.DenyCIDRs {
		if _, err := netip.ParsePrefix(text); err != nil {
			return fmt.Errorf("injection: addresses to deny: %w", err)
		}
	}
	return nil
}

// draw returns a user for one engine.
func (c *Config) draw() (int64, error) {
	uid, err := c.UID()
	if err != nil {
		return 0, err
	}
	if !engineUID(int64(uid)) {
		return 0, fmt.Errorf("injection: the engine's user %d was drawn, which is not between %d and %d", uid, FirstUID, LastUID)
	}
	return int64(uid), nil
}

// engineUID reports that id is of the range that is the engines'.
func engineUID(id int64) bool { return id >= FirstUID && id <= LastUID }

// annotations are what a marked pod says of itself.
func (c *Config) annotations(uid int64) map[string]string {
	out := map[string]string{AnnotationEngineUID: strconv.FormatInt(uid, 10)}
	if c.CAGeneration > 0 {
		out[AnnotationCAGeneration] = strconv.Itoa(c.CAGeneration)
	}
	return out
}
