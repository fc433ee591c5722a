package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// The engine resolves names itself and is measured as it is built, so the
// origin's name has to be in its /etc/hosts: the process gets a mount namespace
// of its own with another file there. That takes root, or user namespaces for
// everybody.

const hostsFile = "hosts"

// named makes cmd start through this program with -role named.
func (l *lab) named(binary string, args ...string) *exec.Cmd {
	cmd := exec.Command(l.self, append([]string{"-role", roleNamed, "-dir", l.dir, "--", binary}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN} // to mount, within the namespace
	}
	return cmd
}

const roleNamed = "named"

// execNamed puts the hosts file of dir in place and becomes the command. The
// process keeps its number.
func execNamed(dir string, command []string) error {
	if len(command) == 0 {
		return errors.New("-role named: no command")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("leaving the machine's mounts alone: %w", err)
	}
	if err := unix.Mount(filepath.Join(dir, hostsFile), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("putting another /etc/hosts in place: %w", err)
	}
	return syscall.Exec(command[0], command, os.Environ())
}
