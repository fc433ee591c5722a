// Package inject writes the engine into a pod and holds everything else in it to what the engine can hold. It is pure: a pod
// comes in, another one or a refusal goes out; package admission speaks HTTP.
//
// # What Pod adds
//
//	aegrail-init      first: the kernel's redirect rules (package redirect) and the mark on the engine's sockets that they let
//	                  out (package passage). Not where enforcement is advisory
//	aegrail-engine    second, without any capability. Both are native sidecars (init containers that restart always), so they
//	                  are up before anything of the agent's, outlive all of it, and do not keep a Job from ending
//	aegrail-passage   the socket at which the engine asks aegrail-init for the mark, in those two alone, and beside it the hosts file
//	                  and resolv.conf that the engine has: the pod's own may be written to by every container
//	aegrail-ca        the bundle, mounted in every container, and the variables that make runtimes trust it (package trustenv)
//	aegrail-token     a token for control, bound to the pod, in the engine alone; plain mode: aegrail-key and aegrail-policy
//	aegrail-log       the audit log, in the engine alone
//
// # What Pod makes of the other containers
//
// Init, sidecar and ephemeral containers too: allowPrivilegeEscalation is false, the capabilities that lead to another user,
// another network or another process are dropped, and seccomp is RuntimeDefault where nothing else is said. The kernel lets out what
// carries a mark, and who has neither NET_ADMIN nor NET_RAW cannot set one, whichever user it is. The engine's user is drawn for the
// pod all the same and is nobody else's, as far as a pod says users: the kernel counts by user what an engine needs (FirstUID).
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
// An image may say which user it runs as, and the pod does not show it. One that is made for an engine's user is held like any
// other, and can use up what the kernel grants that user: the pod's own engine dials no more then, or one of another pod on the node.
//
// The engine has the search domains that whoever makes the pod may fill, as they are before anything of the agent's runs, and of the
// hosts file what names loopback; a resolver the pod may not name. To the engine DNS is not trusted anyway: addresses inside are refused and TLS verifies names,
// which leaves plain http and passthrough. Where enforcement is advisory the engine has the pod's own files.
//
// Devices that bring a network of their own past the kernel's (RDMA, DPDK) are not seen: whoever hands them to pods has to
// keep them from these.
package inject
