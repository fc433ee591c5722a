//go:build !linux || !(amd64 || arm64)

package audit

import "os"

func syncData(f *os.File) error { return f.Sync() }

// dropCache does nothing where there is no posix_fadvise.
func dropCache(uintptr) {}
