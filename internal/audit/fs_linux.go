//go:build linux && (amd64 || arm64)

package audit

import "syscall"

// dropCache is posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED). After a failed
// fsync the page cache may show what never reached the disk: Linux marks the
// pages clean all the same. Advice only, so the result is of no interest.
func dropCache(fd uintptr) {
	const dontNeed = 4
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, fd, 0, 0, dontNeed, 0, 0)
}
