//go:build netns

package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// What an attacker does to files and mounts, with every capability over namespaces
// of its own where the kernel gives them.
// attackFiles: KEY POLICY LOG.
func attackFiles(args []string) {
	data, err := os.ReadFile(args[0])
	fmt.Printf("key: %d bytes, %v\n", len(data), err)
	for i, name := range args[1:] {
		what := []string{"policy", "log"}[i]
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		say("write "+what, err)
		say("truncate "+what, os.Truncate(name, 0))
		say("rename "+what, os.Rename(name, name+".x"))
		say("remove "+what, os.Remove(name))
		say("link "+what, os.Link(name, name+".l"))
	}
}

// attackMounts: KEY: take away what hides it.
func attackMounts(args []string) {
	say("umount", unix.Unmount(args[0], 0))
	say("lazy umount", unix.Unmount(args[0], unix.MNT_DETACH))
	say("umount /proc", unix.Unmount("/proc", unix.MNT_DETACH))
	say("remount", unix.Mount("", args[0], "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	dir, err := os.MkdirTemp("", "m")
	if err == nil {
		err = unix.Mount(args[1], dir, "", unix.MS_BIND, "")
	}
	say("bind the directory", err)
	_, err = unix.OpenTree(unix.AT_FDCWD, args[1], unix.OPEN_TREE_CLONE)
	say("clone the tree", err)
	say("overlay", unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+args[1]+":"+dir))
	say("proc", unix.Mount("proc", dir, "proc", 0, ""))
	data, err := os.ReadFile(args[0])
	fmt.Printf("key: %d bytes, %v\n", len(data), err)
}

// attackNested does the rest with every capability, over a user namespace of
// its own: NETWORK new or old, then an attack.
func attackNested(args []string) {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
	if args[0] == "new" {
		flags |= unix.CLONE_NEWNET
	}
	c := exec.Command("/proc/self/exe", args[1:]...)
	c.Args[0] = "attack"
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := c.Run(); err != nil {
		fmt.Println("nested:", err)
	}
}

// attackUnmapped: DIR: mounts the kernel's own files in a user namespace that maps
// nobody, with a capability that outlives execve.
func attackUnmapped(args []string) {
	if len(args) == 1 {
		c := exec.Command("/proc/self/exe", "unmapped", args[0], "inside")
		c.Args[0] = "attack"
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP, AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
		}
		if err := c.Start(); err != nil {
			say("unmapped", err)
			return
		}
		_ = c.Wait()
		return
	}
	say("unmapped", nil)
	say("cgroups", unix.Mount("cgroup2", args[0], "cgroup2", 0, ""))
	f, err := os.OpenFile(args[0]+"/cgroup.procs", os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	say("the machine's cgroups", err)
}
