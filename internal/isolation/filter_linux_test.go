package isolation

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// call is a system call as a filter sees it.
type call struct {
	arch, number uint32
	args         [2]uint64
}

// judge runs the program on c, as the kernel does (seccomp(2)).
func judge(t *testing.T, program []unix.SockFilter, c call) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[0:], c.number)
	binary.LittleEndian.PutUint32(data[4:], c.arch)
	binary.LittleEndian.PutUint64(data[16:], c.args[0])
	binary.LittleEndian.PutUint64(data[24:], c.args[1])
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		in := program[pc]
		jump := func(taken bool) {
			if taken {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %#x", in.Code)
		}
	}
	t.Fatal("the program has no end")
	return 0
}

func TestE03TheFilterOfEveryABI(t *testing.T) {
	if abis() == nil { // exec cannot isolate here, and says so
		if err := installFilter(); err == nil {
			t.Error("a filter for a machine that is not known")
		}
		return
	}
	errno := func(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
	const ok = uint32(unix.SECCOMP_RET_ALLOW)
	program := filter()
	check := func(what string, c call, want uint32) {
		t.Helper()
		if got := judge(t, program, c); got != want {
			t.Errorf("%s on %#x: %#x, want %#x", what, c.arch, got, want)
		}
	}
	for _, a := range abis() {
		for family := range uint64(50) {
			want := errno(unix.EAFNOSUPPORT)
			if family == unix.AF_UNIX || family == unix.AF_INET || family == unix.AF_INET6 || family == unix.AF_NETLINK {
				want = ok
			}
			check("socket", call{a.arch, a.socket, [2]uint64{family}}, want)
		}
		check("socket with high bits", call{a.arch, a.socket, [2]uint64{unix.AF_VSOCK | 1<<40}}, errno(unix.EAFNOSUPPORT))
		if a.socketcall != 0 {
			check("socketcall of socket", call{a.arch, a.socketcall, [2]uint64{1}}, errno(unix.EAFNOSUPPORT))
			check("socketcall of connect", call{a.arch, a.socketcall, [2]uint64{3}}, ok)
		}
		check("TIOCSTI", call{a.arch, a.ioctl, [2]uint64{0, unix.TIOCSTI}}, errno(unix.EPERM))
		check("TIOCSTI with high bits", call{a.arch, a.ioctl, [2]uint64{0, unix.TIOCSTI | 1<<32}}, errno(unix.EPERM))
		check("TIOCLINUX", call{a.arch, a.ioctl, [2]uint64{0, 0x541c}}, errno(unix.EPERM))
		check("another ioctl", call{a.arch, a.ioctl, [2]uint64{0, unix.TCGETS}}, ok)
		check("io_uring_setup", call{a.arch, 425, [2]uint64{}}, errno(unix.ENOSYS))
		check("request_key", call{a.arch, a.requestKey, [2]uint64{}}, errno(unix.ENOSYS))
		check("anything else", call{a.arch, 1, [2]uint64{unix.AF_VSOCK, unix.TIOCSTI}}, ok)
	}
	check("another ABI", call{0x1234, 1, [2]uint64{}}, errno(unix.ENOSYS))
	if own := abis()[0]; own.socket != unix.SYS_SOCKET || own.ioctl != unix.SYS_IOCTL || own.requestKey != unix.SYS_REQUEST_KEY {
		t.Errorf("this machine's own numbers are not %+v", own)
	}
	if runtime.GOARCH == "amd64" {
		check("x32", call{unix.AUDIT_ARCH_X86_64, 41 | x32, [2]uint64{unix.AF_INET}}, errno(unix.ENOSYS))
	}
}
