// Package passage is how the engine gets out of a pod whose rules hold everybody
// (package redirect): by a mark on its sockets, which it may not set itself.
//
// The rules let out what carries Mark (SO_MARK), whoever sent it. The kernel
// lets a process set a mark that has CAP_NET_ADMIN over the network namespace
// (since Linux 5.17 CAP_NET_RAW will do), and no container of the pod has
// either but aegrail-init. So the engine, which has no capability at all, hands
// each socket that is about to dial to aegrail-init and waits for it to be
// marked: Client is the engine's end, Server aegrail-init's. A user is no part
// of this: who becomes the engine's user is let out no more than anybody else.
//
// The two meet at a unix socket in a volume that only they mount. A path and not
// an abstract name, which everybody in the network namespace could dial.
//
// # The protocol
//
// A connection carries questions, each after the answer to the one before.
//
//	engine        1 byte, Version, with 1 file descriptor beside it (SCM_RIGHTS)
//	aegrail-init  1 byte, an Answer; after any but Marked it hangs up
//
// Both have the same socket of the kernel's, so the mark is there when the answer
// is. The engine reads it back and dials only if it is: an answer is not
// believed. Without an answer it does not dial.
//
// Who asks has to be the engine's user (SO_PEERCRED), and what is handed over a
// TCP or UDP socket of IPv4 or IPv6. Both are a second fence: the first is that
// nobody else has the volume.
//
// # What keeps a mark
//
// A socket keeps it for its life, and so do what the kernel sends for it after
// that (TIME_WAIT); what has no socket any more (a reset) is let out by the
// connection that it belongs to. A packet keeps it up to the end of the pod's
// network: the kernel clears it when the packet goes into another namespace
// (veth), so that the marks of a node's network plugin and kube-proxy neither
// see nor mean this one. Its bits are ones that those do not use, for plugins
// that leave them there. A socket that is accepted has the mark of the one
// that listens, not of the packet, unless the sysctl tcp_fwmark_accept is set:
// that and fwmark_reflect are sysctls that no pod may set beside the engine.
package passage

// Mark is what the sockets of the engine carry: all bits of it are compared.
// None of them is kube-proxy's (0x4000, 0x8000), Cilium's (0x0f00 and the upper
// half), Calico's (the upper half), or the AWS plugin's (0x80).
const Mark = 0x306e

// Version is the byte of a question.
const Version = 1

// Answer is what aegrail-init says of a socket. The zero value is no answer.
type Answer byte

// The answers. All but Marked leave the socket as it was.
const (
	Marked   Answer = iota + 1
	Stranger        // who asks is not the engine's user
	NoSocket        // not one TCP or UDP socket was handed over, with the right byte
	Failed          // the kernel refused to mark it
)

func (a Answer) String() string {
	switch a {
	case Marked:
		return "the socket is marked"
	case Stranger:
		return "who asked is not the engine's user"
	case NoSocket:
		return "what was handed over is not one TCP or UDP socket"
	case Failed:
		return "the kernel refused to mark the socket (aegrail-init needs NET_ADMIN)"
	default:
		return "an answer that is none"
	}
}
