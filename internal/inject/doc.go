// Package inject writes the engine into a pod and holds everything else in it to what the engine can hold. It is pure: a pod
// comes in, another one or a refusal goes out; package admission speaks HTTP.
//
// # What Pod adds
//
//	aegrail-init      first: the kernel's redirect rules (package redirect), then it ends. Not where enforcement is advisory
//	aegrail-engine    second: a native sidecar (an init container that restarts always), so it is up before anything of the
//	                  agent's, outlives all of it, and does not keep a Job from ending
//	aegrail-ca        the bundle, mounted in every container, and the variables that make runtimes trust it (package trustenv)
//	aegrail-token     a token for control, bound to the pod, in the engine alone; plain mode: aegrail-key and aegrail-policy
//	aegrail-log       the audit log, in the engine alone
//
// # What Pod makes of the other containers
//
// Init, sidecar and ephemeral containers too: allowPrivilegeEscalation is false, the capabilities that lead to another user,
// another network or another process are dropped, and seccomp is RuntimeDefault where nothing else is said. The engine runs as
// a user that is drawn for the pod, and the kernel lets out what that user sends; so nobody else may be able to become it.
//
// # What is refused
//
// The namespace of such a pod cannot enforce a Pod Security level, since aegrail-init needs NET_ADMIN. So the pod is held here to
// the level baseline, as k8s.io/pod-security-admission judges it, and to more: no shared process namespace, no user or group of
// the engines' range, no capability that is dropped, no host path and no other volume that the node would fetch from
// where the pod says, no port, volume or mount of the engine's, no token for control's audience but the engine's. A Refusal names the field and the fix.
//
// # What stays open
//
// An image may say which user it runs as, and the pod does not show it. The engine's user is drawn when the pod is made and stands in
// its annotation, so that who makes pods, reads them, and serves the image from a registry of their own can answer with an image made
// for that user, if it is fetched late enough: the pod is scheduled late, the registry is slow, the tag is moved before a restart.
// What that image runs is let out. RequireUser closes it, by refusing containers without runAsUser; nothing else does.
// It is made less cheap: scheduling gates, which hold a pod for as long as one likes, are refused where an image that is not pinned by
// digest says the user, a later image of a running pod where the pod does not say it (CheckUpdate), and ephemeral containers are given one.
//
// The engine shares the pod's hosts file and the search domains of its resolv.conf, which whoever makes the pod may fill; a
// resolver it may not name. To the engine DNS is not trusted anyway: addresses inside are refused and TLS verifies names, which
// leaves plain http.
//
// Devices that bring a network of their own past the kernel's (RDMA, DPDK) are not seen: whoever hands them to pods has to
// keep them from these.
package inject
