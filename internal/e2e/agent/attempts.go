package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// outcome is what came of an attempt to get around the engine.
type outcome struct {
	// Succeeded says that the attempt did what it is for, as far as the one
	// who makes it can tell.
	Succeeded bool   `json:"succeeded"`
	Detail    string `json:"detail"`
}

func failed(err error) outcome { return outcome{Detail: err.Error()} }

// attempts by their names on the command line.
func attempts() map[string]func(args []string) outcome {
	return map[string]func([]string) outcome{
		"dial": dial, "udp": udp, "ping": ping, "lookup": lookup, "become": become, "mark": mark,
		"flush": flush, "flush-in-user-namespace": flushInside, "trace": trace, "read": read, "write": write,
	}
}

// patience is long for a network of one machine and short for a test that is
// about packets that never arrive.
const patience = 2 * time.Second

// dial NETWORK ADDRESS [TEXT]: connects, sends TEXT and succeeds if anything
// is answered; without TEXT, if the connection stands.
func dial(args []string) outcome {
	c, err := net.DialTimeout(args[0], args[1], patience)
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	if len(args) < 3 {
		return outcome{true, "connected to " + c.RemoteAddr().String()}
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, strings.ReplaceAll(args[2], `\r\n`, "\r\n")); err != nil {
		return failed(err)
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if n == 0 {
		return failed(fmt.Errorf("connected, and no answer: %w", err))
	}
	return outcome{true, string(answer[:n])}
}

// udp ADDRESS: sends a datagram and succeeds if one comes back.
func udp(args []string) outcome {
	return dial([]string{"udp", args[0], "are you there"})
}

// ping ADDRESS: an ICMP echo, by whichever kind of socket may be had.
func ping(args []string) outcome {
	ip := net.ParseIP(args[0])
	family, protocol, kind := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(ip.To16()[12:])}
	if ip.To4() == nil {
		family, protocol, kind = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
		to = &unix.SockaddrInet6{Addr: [16]byte(ip)}
	}
	var errs error
	for _, socket := range []int{unix.SOCK_RAW, unix.SOCK_DGRAM} {
		fd, err := unix.Socket(family, socket, protocol)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("a socket of type %d: %w", socket, err))
			continue
		}
		defer unix.Close(fd)
		echo := []byte{kind, 0, 0, 0, 0, 1, 0, 1}
		if kind == 8 {
			sum := 0xffff - (0x0800 + 1 + 1)
			echo[2], echo[3] = byte(sum>>8), byte(sum)
		}
		if err := unix.Sendto(fd, echo, 0, to); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		wait := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return failed(err)
		}
		answer := make([]byte, 256)
		if n, _, err := unix.Recvfrom(fd, answer, 0); err == nil {
			return outcome{true, fmt.Sprintf("%d bytes", n)}
		} else {
			errs = errors.Join(errs, err)
		}
	}
	return failed(errs)
}

// lookup NAME [SERVER]: asks the system's resolver, or SERVER over NETWORK.
func lookup(args []string) outcome {
	r := &net.Resolver{PreferGo: true}
	if len(args) > 2 {
		r.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, args[1], args[2])
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	found, err := r.LookupHost(ctx, args[0])
	if err != nil {
		return failed(err)
	}
	return outcome{true, strings.Join(found, " ")}
}

// become UID NETWORK ADDRESS: becomes another user by every call that there is
// for it, then dials.
func become(args []string) outcome {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return failed(err)
	}
	if os.Geteuid() != uid { // it is, where a setuid binary has worked
		errs := errors.Join(syscall.Setgid(uid), syscall.Setuid(uid), syscall.Setresuid(uid, uid, uid), syscall.Setreuid(uid, uid), setfsuid(uid))
		if os.Geteuid() != uid {
			return failed(fmt.Errorf("still user %d: %w", os.Geteuid(), errs))
		}
	}
	got := dial(args[1:])
	got.Detail = fmt.Sprintf("as user %d: %s", os.Geteuid(), got.Detail)
	got.Succeeded = true // to be that user is enough
	return got
}

// mark ADDRESS MARK: dials by a socket that is marked as the engine's are.
func mark(args []string) outcome {
	mark, err := strconv.ParseInt(args[1], 0, 32)
	if err != nil {
		panic(err) // nothing was attempted
	}
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) }), err)
	}}
	c, err := d.Dial("tcp", args[0])
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	return outcome{true, "connected to " + c.RemoteAddr().String()}
}

func setfsuid(uid int) error {
	runtime.LockOSThread()
	if err := unix.Setfsuid(uid); err != nil {
		return err
	}
	if now, err := unix.SetfsuidRetUid(-1); err != nil || now != uid {
		return fmt.Errorf("setfsuid: still %d", now)
	}
	return nil
}

// flush: takes the redirect rules away.
func flush([]string) outcome {
	c, err := nftables.New()
	if err != nil {
		return failed(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		return failed(err)
	}
	return outcome{true, "the rules are gone"}
}

// flushInside is flush with all capabilities of a user namespace of its own,
// which has no power over the network namespace that it is in.
func flushInside([]string) outcome {
	if len(os.Args) > 2 { // the child
		return flush(nil)
	}
	attr := &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	}
	p, err := os.StartProcess("/proc/self/exe", append(os.Args, "child"), attr)
	if err != nil {
		return failed(err)
	}
	if _, err := p.Wait(); err != nil {
		return failed(err)
	}
	os.Exit(0) // the child has spoken
	return outcome{}
}

// trace: finds a process of the engine and takes hold of it.
func trace([]string) outcome {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	var names []string
	for _, dir := range processes {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		name, _, _ := strings.Cut(string(line), "\x00")
		names = append(names, name)
		if !strings.Contains(name, "aegrail") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if err := syscall.PtraceAttach(pid); err == nil {
			return outcome{true, "attached to " + name}
		}
		if _, err := os.Open(filepath.Join(dir, "mem")); err == nil {
			return outcome{true, "may read the memory of " + name}
		}
		if _, err := os.ReadDir(filepath.Join(dir, "root/etc/aegrail")); err == nil {
			return outcome{true, "may read the files of " + name}
		}
	}
	return outcome{false, "sees " + strings.Join(names, ", ")}
}

// read PATH…: succeeds if any of them can be read, or listed.
func read(args []string) outcome {
	var errs error
	for _, pattern := range args {
		paths, _ := filepath.Glob(pattern)
		for _, p := range append(paths, pattern) {
			if data, err := os.ReadFile(p); err == nil {
				return outcome{true, fmt.Sprintf("%s: %d bytes", p, len(data))}
			}
			if list, err := os.ReadDir(p); err == nil && len(list) > 0 {
				return outcome{true, fmt.Sprintf("%s: %v", p, list)}
			} else if err != nil {
				errs = errors.Join(errs, err)
			}
		}
	}
	if errs == nil {
		return outcome{false, "nothing there"}
	}
	return failed(errs)
}

// write PATH…: succeeds if any of them takes a byte.
func write(args []string) outcome {
	var errs error
	for _, p := range args {
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("1\n")
			f.Close()
		}
		if err == nil {
			return outcome{true, p}
		}
		errs = errors.Join(errs, err)
	}
	return failed(errs)
}
