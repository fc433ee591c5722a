//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// nameFile is one of the files by which programs find names. A runtime mounts the
// pod's in all of its containers, and whoever is root in one of them writes what
// all the others read.
type nameFile struct {
	path string
	kept func(text []byte) []byte // what of it is the engine's; nil: all
}

func nameFiles() []nameFile {
	return []nameFile{{path: "/etc/hosts", kept: ofLoopback}, {path: "/etc/resolv.conf"}}
}

// keepNames copies files into dir, each under the last element of its path, for
// the engine to have instead of the pod's. What is there stays: it is from before
// anything of the agent's ran, and what this container sees now may not be.
func keepNames(dir string, files []nameFile) error {
	for _, file := range files {
		to := filepath.Join(dir, filepath.Base(file.path))
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return fmt.Errorf("looking for what the engine finds names by: %w", err)
			}
			continue
		}
		text, err := os.ReadFile(file.path)
		if file.kept != nil {
			text = file.kept(text)
		}
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

// ofLoopback returns the lines of a hosts file that name loopback. The others are
// this pod's own and its hostAliases, by which who makes the pod would choose where
// a name that policy allows is.
func ofLoopback(hosts []byte) (kept []byte) {
	for line := range bytes.Lines(hosts) {
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if addr, err := netip.ParseAddr(string(fields[0])); err == nil && addr.IsLoopback() {
			kept = append(kept, line...)
		}
	}
	return kept
}
