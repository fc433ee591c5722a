package isolation

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long each step of the child may take. They take milliseconds.
const patience = 30 * time.Second

// namespaces are the command's own.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC

// Namespace is where a command runs that has no other way out than the engine.
// Its methods are for one goroutine, but for Signal.
type Namespace struct {
	child   *exec.Cmd
	control control
	waited  bool
}

// Start makes the namespaces, with a child in them that is this program with
// the arguments args and a stage behind them: it is to call Child with the
// stage, and has this process's environment. The error says why there is no
// isolation to be had. The caller must not have made itself undumpable before,
// and may do so after.
func Start(args []string) (*Namespace, error) {
	if err := noDirectories(os.Stdin, os.Stdout, os.Stderr); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer ours.Close()
	defer theirs.Close()
	n := &Namespace{}
	if n.control, err = controlOf(ours); err != nil {
		return nil, err
	}
	uid, gid := os.Getuid(), os.Getgid()
	n.child = &exec.Cmd{
		Path: "/proc/self/exe", Args: append(args, string(setupStage)),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  namespaces,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
			// Whoever is not root loses all capabilities with execve but for these.
			AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP},
		},
	}
	if err := n.child.Start(); err != nil {
		_ = n.control.conn.Close()
		return nil, fmt.Errorf("making the namespaces: %w%s", unwrapPath(err), forbidden(err))
	}
	return n, nil
}

// noDirectories fails for files that a command would be given to walk from: a
// directory that was opened outside leads through the mounts outside, where
// nothing is hidden.
func noDirectories(files ...*os.File) error {
	for _, f := range files {
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a directory, which would lead past what is hidden; give a file, or /dev/null", f.Name())
		}
	}
	return nil
}

// unwrapPath takes away "fork/exec /proc/self/exe", which is no file that anybody could mend.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// forbidden looks for the setting that keeps a user from having namespaces.
func forbidden(err error) string {
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.ENOSPC) {
		return ""
	}
	for _, s := range []struct{ file, value, fix string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces is 0"},
		{"/proc/sys/user/max_net_namespaces", "0", "sysctl user.max_net_namespaces is 0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone is 0"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor forbids it: sysctl kernel.apparmor_restrict_unprivileged_userns is 1, and this program has no profile that allows userns"},
	} {
		if value, readErr := os.ReadFile(s.file); readErr == nil && strings.TrimSpace(string(value)) == s.value {
			return "; " + s.fix
		}
	}
	return "; user namespaces are forbidden here, by a container's system call filter or a security module"
}

// Prepare lets the child make everything inside, try it, and give up what it
// made it with. After an error there is no isolation, and the namespaces are gone.
func (n *Namespace) Prepare(files Files) (_ *Listeners, err error) {
	l := new(Listeners)
	defer func() {
		if err != nil {
			l.Close()
			n.Close()
		}
	}()
	if files.Sockets, err = boundSockets(); err != nil {
		return nil, err
	}
	if err := n.control.send(message{Files: &files}); err != nil {
		return nil, n.lost(err)
	}
	m, fds, err := n.control.receive(time.Now().Add(patience))
	if err != nil {
		closeAll(fds)
		return nil, n.lost(err)
	}
	if m.Failed != "" || len(m.Sockets) != len(fds) {
		closeAll(fds)
		return nil, errors.New(m.Failed + forbiddenText(m.Failed))
	}
	if err := l.take(m.Sockets, fds); err != nil {
		return nil, err
	}
	m, fds, err = n.control.receive(time.Now().Add(patience))
	closeAll(fds)
	switch {
	case err != nil:
		return nil, n.lost(err)
	case !m.Locked:
		return nil, errors.New(m.Failed)
	}
	return l, nil
}

// forbiddenText is forbidden for an error that has become text.
func forbiddenText(failed string) string {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES} {
		if strings.Contains(failed, errno.Error()) {
			return forbidden(errno)
		}
	}
	return ""
}

// lost explains a control socket that failed: the child has ended.
func (n *Namespace) lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return errors.New("the process in the namespaces ended before it was ready")
	}
	return fmt.Errorf("the process in the namespaces does not answer: %w", err)
}

// take makes listeners of descriptors.
func (l *Listeners) take(kinds []socket, fds []int) error {
	var failed error
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), string(kinds[i]))
		failed = errors.Join(failed, l.takeOne(kinds[i], f))
		f.Close()
	}
	if failed == nil && (l.Forward == nil || len(l.Transparent) == 0 || len(l.DNSPacket) == 0 || len(l.DNSStream) == 0) {
		failed = errors.New("the namespaces came without a socket for each of the engine's ports")
	}
	return failed
}

func (l *Listeners) takeOne(kind socket, f *os.File) error {
	if kind == packetSocket {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		u, ok := c.(*net.UDPConn)
		if !ok {
			_ = c.Close()
			return errors.New("a socket for DNS that is not UDP")
		}
		l.DNSPacket = append(l.DNSPacket, u)
		return nil
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	switch kind {
	case forwardSocket:
		l.Forward = ln
	case transparentSocket:
		l.Transparent = append(l.Transparent, ln)
	case streamSocket:
		l.DNSStream = append(l.DNSStream, ln)
	default:
		ln.Close()
		return fmt.Errorf("a socket for %q", kind)
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Run starts the command. Prepare must have succeeded.
func (n *Namespace) Run(c Command) error {
	if err := n.control.send(message{Command: &c}); err != nil {
		return n.lost(err)
	}
	m, _, err := n.control.receive(time.Now().Add(patience))
	switch {
	case err != nil:
		return n.lost(err)
	case !m.Started:
		return errors.New(m.Failed)
	}
	return nil
}

// Signal passes s on to the command.
func (n *Namespace) Signal(s os.Signal) { _ = n.child.Process.Signal(s) } // it may be gone already

// Wait waits for the command's end and returns its exit code, 128 + n for
// signal n. Whatever it left running is gone then.
func (n *Namespace) Wait() (int, error) {
	n.waited = true
	err := n.child.Wait()
	_ = n.control.conn.Close()
	return ExitCode(err)
}

// Close ends everything inside, if it has not ended yet.
func (n *Namespace) Close() {
	_ = n.control.conn.Close()
	if !n.waited {
		n.waited = true
		_ = n.child.Process.Kill()
		_ = n.child.Wait()
	}
}
