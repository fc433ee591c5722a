//go:build !linux || !(amd64 || arm64)

package audit

// dropCache does nothing where there is no posix_fadvise.
func dropCache(uintptr) {}
