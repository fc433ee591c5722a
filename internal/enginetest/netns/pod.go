//go:build netns

package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, held by a thread of its own until the test
// ends. What a test leaves in it is gone with it.
type Namespace struct {
	work chan func()
	id   int // of the thread
}

// newNamespace needs root: unlike Main it makes no user namespace, so that a
// test may have several users.
func newNamespace(tb testing.TB) *Namespace {
	tb.Helper()
	n := &Namespace{work: make(chan func())}
	made := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		n.id = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = errors.Join(loopbackUp(), filter())
		}
		made <- err
		for work := range n.work {
			work()
		}
	}()
	tb.Cleanup(func() { close(n.work) })
	if err := <-made; err != nil {
		tb.Fatalf("a network namespace (as root, with CAP_SYS_ADMIN): %v", err)
	}
	return n
}

// filter refuses to the thread, and to what it starts, sockets to the
// hypervisor, as the default filter of a container runtime does.
func filter() error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // its first argument, on a little-endian machine
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_VSOCK, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	return nil
}

// Do runs fn in the namespace: sockets that it opens and processes that it
// starts are there for good. It must not be called from within fn.
func (n *Namespace) Do(fn func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); fn() }
	<-done
}

// Pod is a namespace like a pod's, and one beyond it: the cluster and the world.
type Pod struct {
	*Namespace
	Cluster  *Namespace
	Pod4     netip.Addr // the pod's addresses
	Pod6     netip.Addr
	Cluster4 netip.Addr // where the pod's default routes lead
	Cluster6 netip.Addr
}

// NewPod makes both, joined by a pair of virtual interfaces. It needs root and
// the ip of iproute2.
func NewPod(tb testing.TB) *Pod {
	tb.Helper()
	p := &Pod{
		Namespace: newNamespace(tb), Cluster: newNamespace(tb),
		Pod4: netip.MustParseAddr("10.77.0.2"), Pod6: netip.MustParseAddr("fd77::2"),
		Cluster4: netip.MustParseAddr("10.77.0.1"), Cluster6: netip.MustParseAddr("fd77::1"),
	}
	ip := func(n *Namespace, line string) {
		tb.Helper()
		n.Do(func() {
			if out, err := exec.CommandContext(context.Background(), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				tb.Errorf("ip %s: %v\n%s", line, err, out)
			}
		})
	}
	ip(p.Namespace, fmt.Sprintf("link add eth0 type veth peer name eth0 netns %d", p.Cluster.id))
	for _, end := range []struct {
		n      *Namespace
		v4, v6 netip.Addr
	}{{p.Namespace, p.Pod4, p.Pod6}, {p.Cluster, p.Cluster4, p.Cluster6}} {
		ip(end.n, fmt.Sprintf("address add %s/24 dev eth0", end.v4))
		ip(end.n, fmt.Sprintf("address add %s/64 dev eth0 nodad", end.v6))
		ip(end.n, "link set eth0 up")
	}
	ip(p.Namespace, fmt.Sprintf("route add default via %s", p.Cluster4))
	ip(p.Namespace, fmt.Sprintf("-6 route add default via %s", p.Cluster6))
	// A packet for any address is received beyond, and seen there.
	ip(p.Cluster, "route add local 192.0.2.0/24 dev lo")
	ip(p.Cluster, "-6 route add local 2001:db8::/32 dev lo")
	if tb.Failed() {
		tb.FailNow()
	}
	return p
}

// containerCaps are the capabilities that a container has of a usual runtime,
// less those that the webhook takes from agents.
const containerCaps = "-all,+dac_override,+fowner,+fsetid,+kill,+setpcap,+net_bind_service,+sys_chroot,+mknod,+audit_write"

// Container is how a process of the pod runs. The zero value is root with what
// an injected container has.
type Container struct {
	UID        uint32
	Caps       string   // a bounding set in the words of setpriv; "" is an injected container's
	Escalation bool     // allowPrivilegeEscalation
	Environ    []string // nil: this process's
}

// program names, in the environment of a test binary, what it is this time.
const program = "AEGRAIL_TEST_PROGRAM"

// Programs runs the program that Command has started this binary for, and ends
// with it. It returns in any other process: TestMain calls it first.
func Programs(all map[string]func(args []string)) {
	if name := os.Getenv(program); name != "" {
		os.Unsetenv(program)
		all[name](os.Args[1:])
		os.Exit(0)
	}
}

// Command is the test binary as the program of that name, in a container of
// the pod. The caller starts it by Do.
func (c Container) Command(tb testing.TB, name string, args ...string) *exec.Cmd {
	tb.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { self.Close() })
	caps, uid := c.Caps, strconv.FormatUint(uint64(c.UID), 10)
	if caps == "" {
		caps = containerCaps
	}
	line := []string{"--reuid", uid, "--regid", uid, "--clear-groups", "--inh-caps=-all", "--bounding-set=" + caps}
	if !c.Escalation {
		line = append(line, "--no-new-privs")
	}
	// By its descriptor, since the directory of a test binary is its owner's.
	line = append(append(line, "--", "/proc/self/fd/3"), args...)
	cmd := exec.CommandContext(tb.Context(), "setpriv", line...)
	environ := c.Environ
	if environ == nil {
		environ = os.Environ()
	}
	cmd.Env = append(slices.Clone(environ), program+"="+name)
	cmd.ExtraFiles = []*os.File{self}
	return cmd
}

// Run runs the program in the pod's container and returns what it printed and its
// exit code.
func (p *Pod) Run(tb testing.TB, c Container, name string, args ...string) (string, int) {
	tb.Helper()
	cmd := c.Command(tb, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	p.Do(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, out.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}
