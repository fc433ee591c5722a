// Package isolation runs a command where the engine is its only way out: in
// user, network, pid, mount and IPC namespaces of its own (Linux). It needs no
// privileges where the kernel lets users have namespaces.
//
// # What is inside
//
// The network namespace has one interface, lo, and no way to any other. Its
// default routes lead to lo, so that a packet to anywhere comes by the rules of
// package redirect: TCP ends in the engine's transparent port, DNS in its
// resolver, the rest is dropped. The sockets behind those ports are opened
// inside and handed out to the engine, which stays in the user's network:
//
//	127.0.0.1:14128          the forward proxy, for programs that know one
//	127.0.0.1, ::1   :14443  redirected TCP
//	127.0.0.1, ::1   :14053  redirected DNS, UDP and TCP
//	198.18.0.1, fdae:6a11:5e9:1::1
//	                         the namespace's own addresses, for programs that
//	                         look for one that is not loopback
//
// The command keeps its user, so that files keep their owner, and is nobody's
// root: no capability, none to be had (empty bounding set, no_new_privs), so
// neither the rules nor the interface can be changed. A system call filter
// leaves it the socket families that end in the namespace (UNIX, INET, INET6,
// NETLINK: no VSOCK, which reaches the host of a virtual machine, no SMC, TIPC,
// BLUETOOTH, …), no io_uring, which would open the others past the filter, no
// request_key, for which the kernel runs a program outside that may ask DNS, and
// no TIOCSTI or TIOCLINUX, which type into the terminal behind it.
//
// The pid namespace hides every process outside, and ends with the command's
// first process: nothing it leaves running outlives the engine.
//
// In the mount namespace /proc is mounted anew, resolv.conf names the resolver,
// files that the caller names are hidden or read-only, and each unix socket of
// other programs that can be found is hidden: D-Bus, the agents for ssh and
// gpg, Docker, X11 and tmux would all run commands outside for whoever asks.
// For root, whose files include the kernel's, /proc/sys and /sys are read-only
// besides, /dev has the harmless devices alone, and there are no user namespaces
// to mount any of it anew in.
//
// # How it comes to be
//
// Start clones this program into the namespaces as "setup", with capabilities
// over them. It waits for the caller, who may only then make secrets: a process
// that cannot be read cannot write the maps of its child's users. Prepare lets
// it do all of the above and try it: the rules are read back, connections and
// datagrams to addresses that nobody has must land where they should. It then
// gives everything up, hands out the sockets and becomes "init", which looks at
// itself from inside (capabilities, filter, interfaces) and says so. Only after
// that can Run start the command. Whatever fails before is one error of Start
// or Prepare, and the namespaces are gone.
//
// init reaps, passes signals on, and ends with the command's exit code. When
// the engine ends in whatever way, the control socket closes, init ends, and
// with it everything inside.
//
// # What it is not
//
// It holds the network, not the files: the command may write what its user may
// write, also what that user runs later outside (a shell's profile, a crontab).
// A unix socket that is made after the start, at a path the command can reach,
// is open to it. A terminal, pipe or socket that the user gives as standard
// input, output or error is the command's. At a terminal the command is in the
// engine's process group, for job control, and can signal all of it.
package isolation
