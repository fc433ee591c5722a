//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

// examine needs the Linux that agents of a pod are on, and commands that exec
// isolates.
func examine(context.Context, *doctorOptions, func(string) bool, io.Writer) error {
	return badInput(errors.New("doctor needs Linux: elsewhere nothing holds a program, and proxy variables are all there is"))
}
