package inject

// Labels, annotations and what they may say.
const (
	// LabelInject asks for injection: on a namespace with the value InjectNamespace, on a pod with InjectPod. An annotation of
	// the same name on the pod is honoured like the label.
	LabelInject     = "aegrail.io/inject"
	InjectNamespace = "enabled"
	InjectPod       = "true"

	// LabelInjected marks what Pod returned, with the value "true". Control signs for marked pods alone, so that nothing else
	// may carry it.
	LabelInjected = "aegrail.io/injected"

	// LabelIdentity is what a pod claims to be. It is recorded and selects nothing.
	LabelIdentity = "aegrail.io/identity"

	// LabelPolicy marks, with the value "true", a ConfigMap of control's namespace that holds policy.
	LabelPolicy = "aegrail.io/policy"

	// AnnotationCAGeneration names the generation of the namespace's root, a decimal number from 1: on a pod the one it trusts
	// since its start, on the bundle's ConfigMap the newest in it.
	AnnotationCAGeneration = "aegrail.io/ca-generation"

	// ConditionReady is the condition of a namespace by which control says whether it has a CA.
	ConditionReady = "aegrail.io/CAReady"

	// AnnotationEngineUID is the user that the engine of a pod runs as, in decimal.
	AnnotationEngineUID = "aegrail.io/engine-uid"
)

// Containers and volumes of ours, and what is mounted where.
const (
	ContainerInit   = "aegrail-init"
	ContainerEngine = "aegrail-engine"

	VolumeCA     = "aegrail-ca"     // the bundle, in every container
	VolumeToken  = "aegrail-token"  // the engine's token for control, in the engine alone
	VolumeLog    = "aegrail-log"    // the audit log, in the engine alone
	VolumeKey    = "aegrail-key"    // plain mode: the CA with its key, in the engine alone
	VolumePolicy = "aegrail-policy" // plain mode: the policy, in the engine alone

	// VolumePassage is where the engine has its sockets marked by aegrail-init (package passage), in those two alone: whoever
	// else had it, and were the engine's user, would be let out.
	VolumePassage = "aegrail-passage"

	PathCA     = "/etc/aegrail/ca"
	PathToken  = "/var/run/secrets/aegrail"
	PathLog    = "/var/log/aegrail"
	PathKey    = "/etc/aegrail/key"
	PathPolicy = "/etc/aegrail/policy"

	PathPassage   = "/var/run/aegrail"
	PassageSocket = "passage"

	// Beside the socket, by aegrail-init: what the engine has as /etc/hosts and /etc/resolv.conf. The pod's own are the same files in
	// all of its containers, and the runtime lets root in each of them write there.
	PassageHosts    = "hosts"
	PassageResolver = "resolv.conf"

	// Where the image has the programs.
	CommandEngine = "/aegrail-engine"
	CommandInit   = "/aegrail-init"
)

// The bundle: the ConfigMap in the agents' namespace, and its keys.
const (
	BundleConfigMap = "aegrail-ca-bundle"
	BundlePEM       = "ca-bundle.pem"  // public roots, the namespace's current root and the next
	BundleP12       = "ca-bundle.p12"  // the same as a Java trust store
	BundleControl   = "control-ca.crt" // what the engine verifies control with

	// BundlePassword opens BundleP12. It is no secret: there are only certificates in it.
	BundlePassword = "changeit"

	// PlainPolicy is the key of plain mode's policy ConfigMap.
	PlainPolicy = "policy.yaml"
)

// The engine's token for control.
const (
	TokenAudience = "aegrail-control"
	TokenSeconds  = 3600 // of its life; kubelet renews it at four fifths
	TokenFile     = "token"
)

// Ports of the engine in the pod's network namespace.
const (
	PortTransparent = 15001 // TCP that the kernel redirects
	PortAdmin       = 15020 // probes and metrics, on the pod's address
	PortDNS         = 15053 // DNS that the kernel redirects, UDP and TCP
	PortProxy       = 15080 // forward proxy on loopback, where enforcement is advisory
)

// The engine's user is drawn for each pod between these, both included. Its group has the same number. It lets nobody out; but the
// kernel counts much by user, on the whole node (inotify, sockets that are handed over), and a pod that had the user of another's
// engine could use up what that engine needs. So nothing else may name one of them, or become it by its capabilities.
const (
	FirstUID = 2_000_000_000
	LastUID  = 2_000_999_999
)
