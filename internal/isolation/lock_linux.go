package isolation

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// securebits: root's user is as any other, and none of it can be undone
// (capabilities(7)).
const securebits = 1<<0 | 1<<1 | // SECBIT_NOROOT, locked
	1<<2 | 1<<3 | // SECBIT_NO_SETUID_FIXUP, locked
	1<<5 | // SECBIT_KEEP_CAPS, locked (off)
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE, locked

// lock gives up, for the calling thread and what it executes, everything that
// could change what was made, and every way to get it back.
func lock() error {
	if err := closeOnExec(); err != nil {
		return fmt.Errorf("closing what was inherited: %w", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > 0 {
			break // the kernel has no more
		}
		if err != nil {
			return fmt.Errorf("emptying the bounding set: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, securebits, 0, 0, 0); err != nil {
		return fmt.Errorf("setting the secure bits: %w", err)
	}
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding new privileges: %w", err)
	}
	return installFilter()
}

// locked looks from inside whether everything is given up, as a process sees it
// that execve has made.
func locked() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("looking at this process: %w", err)
	}
	want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2"}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		want[set] = "0000000000000000"
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if need, ok := want[name]; ok {
			if value = strings.TrimSpace(value); value != need {
				return fmt.Errorf("this process has %s %s, not %s", name, value, need)
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("the kernel does not say all of what must be looked at: %v", want)
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("this process is number %d of its namespace, not 1", os.Getpid())
	}
	for _, family := range []int{unix.AF_VSOCK, unix.AF_PACKET} {
		if fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0); !errors.Is(err, unix.EAFNOSUPPORT) {
			_ = unix.Close(fd)
			return fmt.Errorf("a socket of family %d is not refused: %w", family, err)
		}
	}
	return onlyLoopback()
}
