package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// K6: no ptrace, no /proc/PID/mem, no core dump by a process of the same user.
func TestK06TheProcessIsNotDumpable(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := harden(); err != nil {
		t.Fatal(err)
	}
	after, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || after != 0 {
		t.Errorf("dumpable is %d (%v), want 0", after, err)
	}
}
