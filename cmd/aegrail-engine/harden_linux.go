package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden makes the process's memory unreadable to others of its user: no
// ptrace, no /proc/PID/mem, no core dump. The CA key is in that memory, and on
// a laptop the agent runs as the same user. The flag does not outlive execve,
// so a command that exec starts is as it would be without us. exec makes
// COMMAND's namespaces before: a process that cannot be read cannot write the
// user maps of its child.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	return nil
}
