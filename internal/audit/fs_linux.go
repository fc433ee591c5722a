//go:build linux && (amd64 || arm64)

package audit

import (
	"errors"
	"os"
	"syscall"
)

// syncData is fdatasync(2): the content and the size, not the times.
func syncData(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var synced error
	if raw.Control(func(fd uintptr) {
		for {
			if synced = syscall.Fdatasync(int(fd)); !errors.Is(synced, syscall.EINTR) {
				return
			}
		}
	}) != nil {
		return os.ErrClosed // all that Control fails with, though in an error of its own
	}
	return synced
}

// dropCache is posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED). After a failed
// fsync the page cache may show what never reached the disk: Linux marks the
// pages clean all the same. Advice only, so the result is of no interest.
func dropCache(fd uintptr) {
	const dontNeed = 4
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, fd, 0, 0, dontNeed, 0, 0)
}
