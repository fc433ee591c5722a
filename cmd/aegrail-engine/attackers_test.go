//go:build !netns

package main

// attackers are the programs of the tests that need namespaces.
func attackers() map[string]func() { return nil }
