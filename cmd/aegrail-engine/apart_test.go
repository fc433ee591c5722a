//go:build !faults

package main

import "github.com/rogpeppe/go-internal/testscript"

// apart runs the tests where they are.
func apart(m testscript.TestingM) testscript.TestingM { return m }
