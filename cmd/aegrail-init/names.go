//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// nameFiles are the files by which programs find names. A runtime mounts the
// pod's in all of its containers, and whoever is root in one of them writes what
// all the others read.
func nameFiles() []string { return []string{"/etc/hosts", "/etc/resolv.conf"} }

// keepNames copies files into dir, each under the last element of its name, for
// the engine to have instead of the pod's. What is there stays: it is from before
// anything of the agent's ran, and what this container sees now may not be.
func keepNames(dir string, files []string) error {
	for _, file := range files {
		to := filepath.Join(dir, filepath.Base(file))
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return fmt.Errorf("looking for what the engine finds names by: %w", err)
			}
			continue
		}
		text, err := os.ReadFile(file) //nolint:gosec // of the pod, as kubelet and the runtime made it
		if err == nil {
			err = errors.Join(os.WriteFile(to+".new", text, 0o644), os.Chmod(to+".new", 0o644)) //nolint:gosec // the engine is another user
		}
		if err == nil {
			err = os.Rename(to+".new", to) // whole or not at all
		}
		if err != nil {
			return fmt.Errorf("keeping what the engine finds names by: %w", err)
		}
	}
	return nil
}
