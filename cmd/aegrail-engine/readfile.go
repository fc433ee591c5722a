package main

import "github.com/arpitcoder/aegrail-engine/internal/watch"

// maxFile bounds what is read as configuration.
const maxFile = 32 << 20 // 32 MiB, the largest policy

// readFile reads a file that the user named.
func readFile(what, name string) ([]byte, error) { return watch.ReadFile(what, name, maxFile) }
