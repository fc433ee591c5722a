//go:build !linux

package main

import (
	"fmt"
	"os"
)

func forbidMain() {
	fmt.Fprintln(os.Stderr, "forbid: needs Linux")
	os.Exit(125)
}
