//go:build linux && faults

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestL04Disks runs the engine on file systems that fail as disks do. They are
// mounted in a mount namespace of the tests' own, which takes root and, for
// those on loop devices, mkfs. Besides the commands of TestL04AndL05Faults there are
//
//	loop IMAGE                make a block device of a file; sets LOOP
//	mount ARG… DIR            mount(8), until the script ends
//	goingdown DIR             fail all input and output of the file system of DIR
func TestL04Disks(t *testing.T) {
	cmds := faultCommands()
	cmds["loop"], cmds["mount"], cmds["goingdown"] = cmdLoop, cmdMount, cmdGoingDown
	runScripts(t, "disks", cmds)
}

func cmdLoop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: loop IMAGE")
	}
	ts.Check(ts.Exec("losetup", "-f", "--show", args[0]))
	device := strings.TrimSpace(ts.ReadFile("stdout"))
	ts.Setenv("LOOP", device)
	ts.Defer(func() { _ = exec.Command("losetup", "-d", device).Run() }) // when nothing uses it
}

func cmdMount(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: mount ARG… DIR")
	}
	ts.Check(ts.Exec("mount", args...))
	ts.Defer(func() { _ = unix.Unmount(ts.MkAbs(args[len(args)-1]), unix.MNT_DETACH) })
}

// cmdGoingDown stops the file system at once, as a driver does whose device is
// gone: whatever is asked of it fails with EIO until it is mounted again.
func cmdGoingDown(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: goingdown DIR")
	}
	dir, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer dir.Close()
	const goingDown, noLogFlush = 0x8004587d, 2 // FS_IOC_GOINGDOWN of ext4, XFS, f2fs
	ts.Check(unix.IoctlSetPointerInt(int(dir.Fd()), goingDown, noLogFlush))
}

const insideMounts = "AEGRAIL_TEST_IN_MOUNTNS"

// elsewhere starts the test binary again in a mount namespace of its own.
type elsewhere struct{}

// apart runs the tests where nothing outside sees what they mount, and where
// all of it is gone with them.
func apart(m testscript.TestingM) testscript.TestingM {
	if os.Getenv(insideMounts) != "" {
		return m
	}
	return elsewhere{}
}

func (elsewhere) Run() int {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideMounts+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "in a mount namespace of its own, which only root can make:", err)
		return 1
	}
	return 0
}
