package isolation

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// abi is one way to call the kernel and its numbers for what is filtered.
// io_uring_setup is 425 in all of them.
type abi struct {
	arch       uint32 // AUDIT_ARCH_…
	socket     uint32
	socketcall uint32 // 0: none
	ioctl      uint32
	requestKey uint32
}

// abis are those that the kernel of this machine may offer. A call by any other
// is refused. Only little-endian machines are here: the filter reads the low
// half of arguments where those have it.
func abis() []abi {
	switch runtime.GOARCH {
	case "amd64":
		return []abi{{unix.AUDIT_ARCH_X86_64, 41, 0, 16, 249}, {unix.AUDIT_ARCH_I386, 359, 102, 54, 287}}
	case "arm64":
		return []abi{{unix.AUDIT_ARCH_AARCH64, 198, 0, 29, 218}, {unix.AUDIT_ARCH_ARM, 281, 0, 54, 310}}
	case "riscv64":
		return []abi{{unix.AUDIT_ARCH_RISCV64, 198, 0, 29, 218}}
	case "ppc64le":
		return []abi{{unix.AUDIT_ARCH_PPC64LE, 326, 102, 54, 270}}
	default:
		return nil
	}
}

const (
	ioUringSetup  = 425
	socketcallNew = 1          // SYS_SOCKET of socketcall(2)
	x32           = 0x40000000 // the bit of x86-64's 32-bit calls
	tiocLinux     = 0x541c     // TIOCLINUX

	offNumber, offArch      = 0, 4
	offArgument0, offSecond = 16, 24 // low halves, little-endian
)

// families are those whose sockets end in the network namespace.
func families() []uint32 {
	return []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
}

func refuseWith(e unix.Errno) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

func allow() unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// when runs then, which ends in an answer, if what is loaded equals k.
func when(k uint32, then ...unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(len(then))}}, then...)
}

// filter is the program: each call is refused with an error number or allowed.
func filter() []unix.SockFilter {
	program := []unix.SockFilter{load(offArch)}
	for _, a := range abis() {
		program = append(program, when(a.arch, a.filter()...)...)
	}
	return append(program, refuseWith(unix.ENOSYS))
}

func (a abi) filter() []unix.SockFilter {
	program := []unix.SockFilter{load(offNumber)}
	if a.arch == unix.AUDIT_ARCH_X86_64 {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32, Jf: 1}, refuseWith(unix.ENOSYS))
	}
	byFamily := []unix.SockFilter{load(offArgument0)}
	for _, f := range families() {
		byFamily = append(byFamily, when(f, allow())...)
	}
	program = append(program, when(a.socket, append(byFamily, refuseWith(unix.EAFNOSUPPORT))...)...)
	if a.socketcall != 0 { // its arguments are in memory, out of a filter's sight
		program = append(program, when(a.socketcall, append(append([]unix.SockFilter{load(offArgument0)},
			when(socketcallNew, refuseWith(unix.EAFNOSUPPORT))...), allow())...)...)
	}
	byRequest := []unix.SockFilter{load(offSecond)}
	for _, request := range []uint32{unix.TIOCSTI, tiocLinux} {
		byRequest = append(byRequest, when(request, refuseWith(unix.EPERM))...)
	}
	program = append(program, when(a.ioctl, append(byRequest, allow())...)...)
	program = append(program, when(ioUringSetup, refuseWith(unix.ENOSYS))...)
	// The kernel looks for a key with a program of its own, outside and as root:
	// for a dns_resolver's, by DNS (request-key(8)).
	program = append(program, when(a.requestKey, refuseWith(unix.ENOSYS))...)
	return append(program, allow())
}

// installFilter makes it the calling thread's and that of all it starts, for good.
func installFilter() error {
	if abis() == nil {
		return fmt.Errorf("there is no system call filter for %s", runtime.GOARCH)
	}
	program := filter()
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0); err != nil {
		return fmt.Errorf("filtering system calls: %w", err)
	}
	return nil
}
