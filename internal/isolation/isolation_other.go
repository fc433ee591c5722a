//go:build !linux

package isolation

import (
	"errors"
	"os"
)

// Namespace is only to be had on Linux.
type Namespace struct{}

// Start fails.
func Start([]string) (*Namespace, error) { return nil, errors.New("namespaces need Linux") }

// Prepare fails.
func (*Namespace) Prepare(Files) (*Listeners, error) { return nil, errors.New("namespaces need Linux") }

// Run fails.
func (*Namespace) Run(Command) error { return errors.New("namespaces need Linux") }

// Signal does nothing.
func (*Namespace) Signal(os.Signal) {}

// Wait fails.
func (*Namespace) Wait() (int, error) { return 0, errors.New("namespaces need Linux") }

// Close does nothing.
func (*Namespace) Close() {}

// Child fails.
func Child(string, []string) (int, error) { return 0, errors.New("namespaces need Linux") }
