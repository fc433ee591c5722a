package main

import (
	"fmt"
	"os"
)

// maxFile bounds what is read as configuration.
const maxFile = 32 << 20 // 32 MiB, the largest policy

// readFile reads a file that the user named, with a bound and an error that
// says what it was for.
func readFile(what, name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	case info.IsDir():
		return nil, fmt.Errorf("reading the %s: %s is a directory, want a file", what, name)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("reading the %s: %s has %d bytes, at most %d are read", what, name, info.Size(), maxFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	return data, nil
}
