package isolation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// makeMounts changes what the command sees of the file system. Nothing of it is
// seen outside.
func makeMounts(files Files) error {
	// What is mounted outside later shows inside; nothing goes the other way.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("parting the mounts: %w", err)
	}
	for _, name := range files.Hidden {
		if err := hide(name); err != nil {
			return fmt.Errorf("hiding %s: %w", name, err)
		}
	}
	for _, name := range append(files.Sockets, findSockets("/run", "/var/run", "/tmp", "/var/tmp")...) {
		if info, err := os.Lstat(name); err != nil || info.Mode().Type() != fs.ModeSocket {
			continue
		}
		if err := gone(hide(name)); err != nil {
			return fmt.Errorf("hiding the socket %s: %w", name, err)
		}
	}
	for _, name := range files.ReadOnly {
		if err := readOnly(name, 0); err != nil {
			return fmt.Errorf("making %s read-only: %w", name, err)
		}
	}
	if err := replaceResolvConf(files.ResolvConf); err != nil {
		return err
	}
	if err := mountProc(); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		return holdRoot()
	}
	return nil
}

// hide makes a file empty: the null device is there in its place.
func hide(name string) error { return unix.Mount("/dev/null", name, "", unix.MS_BIND, "") }

// gone takes err for none where the file is not there: it needs no hiding. It is
// not for files that the caller names, which are there.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// readOnly binds a file or, with MS_REC, a tree onto itself and forbids
// writing. What the mount below forbids has to stay forbidden.
func readOnly(name string, recursive uintptr) error {
	if err := unix.Mount(name, name, "", unix.MS_BIND|recursive, ""); err != nil {
		return err
	}
	if recursive != 0 {
		return unix.MountSetattr(unix.AT_FDCWD, name, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	var s unix.Statfs_t
	if err := unix.Statfs(name, &s); err != nil {
		return err
	}
	flags := uintptr(s.Flags) & (unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC)
	return unix.Mount("", name, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, "")
}

// replaceResolvConf binds name over the system's resolv.conf. Where there is
// none, libraries ask 127.0.0.1, which is as good.
func replaceResolvConf(name string) error {
	if err := gone(unix.Mount(name, "/etc/resolv.conf", "", unix.MS_BIND, "")); err != nil {
		return fmt.Errorf("replacing /etc/resolv.conf: %w", err)
	}
	return nil
}

func mountProc() error {
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mounting /proc: %w: parts of it are hidden here, as in a container, and a new one would show them", err)
	}
	if err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return nil
}

// holdRoot takes from root's user what the kernel's files give it. The kernel
// lets a file's owner write it without any capability, and to the kernel's own
// files root is the owner: core_pattern or a disk would lead outside.
func holdRoot() error {
	// In a user namespace of its own root could mount those files anew: cgroups
	// to begin with. It could use it for nothing else, since it may not map its user.
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return fmt.Errorf("forbidding root user namespaces: %w", err)
	}
	if err := privateDev(); err != nil {
		return fmt.Errorf("making a /dev for root: %w", err)
	}
	if err := readOnly("/sys", unix.MS_REC); err != nil {
		return fmt.Errorf("making /sys read-only for root: %w", err)
	}
	for _, name := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi"} {
		if err := gone(readOnly(name, 0)); err != nil {
			return fmt.Errorf("making %s read-only for root: %w", name, err)
		}
	}
	return nil
}

// privateDev mounts a /dev that has what programs need and no disk.
func privateDev() error {
	devices := map[string]int{}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		fd, err := unix.Open("/dev/"+name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // then there is none inside either
		}
		defer func() { _ = unix.Close(fd) }()
		devices[name] = fd
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return err
	}
	for name, fd := range devices {
		f, err := os.OpenFile("/dev/"+name, os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		f.Close()
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), "/dev/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for _, m := range []struct{ dir, kind, options string }{
		{"/dev/shm", "tmpfs", "mode=1777"}, {"/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=620"},
	} {
		if err := os.Mkdir(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, m.options); err != nil {
			return err
		}
	}
	for _, link := range [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	} {
		if err := os.Symlink(link[0], "/dev/"+link[1]); err != nil {
			return err
		}
	}
	return nil
}

// maxEntries bounds how much of a directory tree is looked through for sockets.
const maxEntries = 50_000

// findSockets returns the sockets in the trees of dirs, as far as this user can
// see them. A container has there what was mounted into it.
func findSockets(dirs ...string) []string {
	var found, roots []string
	for _, dir := range dirs {
		if root, err := filepath.EvalSymlinks(dir); err == nil && !slices.Contains(roots, root) {
			roots = append(roots, root)
		}
	}
	left, far := maxEntries, remoteMounts()
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if left--; left < 0 {
				return fs.SkipAll
			}
			if slices.Contains(far, name) {
				return fs.SkipDir
			}
			if err != nil { // what cannot be looked into cannot be connected to by that path
				return nil //nolint:nilerr // see above
			}
			if d.Type() == fs.ModeSocket {
				found = append(found, name)
			}
			return nil
		})
	}
	return found
}

// remoteMounts are where file systems are mounted that a server answers for: to
// look into one may take for ever, and no socket there is this machine's.
func remoteMounts() (dirs []string) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) { // fstab(5): device, directory, type, …
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		for _, kind := range []string{"fuse", "nfs", "cifs", "smb", "autofs", "9p", "ceph", "afs"} {
			if strings.HasPrefix(fields[2], kind) {
				dirs = append(dirs, strings.ReplaceAll(fields[1], `\040`, " "))
			}
		}
	}
	return dirs
}

// boundSockets returns the paths of the unix sockets of this network namespace
// (proc_net_unix(5)), of whoever they are.
func boundSockets() ([]string, error) {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, fmt.Errorf("listing unix sockets: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		// Num RefCount Protocol Flags Type St Inode Path
		_, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " /")
		if ok && !slices.Contains(found, "/"+path) {
			found = append(found, "/"+path)
		}
	}
	return found, nil
}
