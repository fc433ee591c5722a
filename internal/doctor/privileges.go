//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/passage"
	"github.com/arpitcoder/aegrail-engine/internal/redirect"
)

const (
	fixPrivileges = "give each container of the pod securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, as injection does"
	fixEngineUID  = fixPrivileges + "; let the engine alone run as its user"
	fixProcess    = "leave out shareProcessNamespace and hostPID, or run as another user than the engine, without SYS_PTRACE"
)

func (p *patient) privilegeChecks() []check {
	never := func(run func() outcome) func(context.Context) outcome {
		return func(context.Context) outcome { return run() }
	}
	return []check{
		{"E3", "capabilities, and programs that give them", fixPrivileges, never(p.privileges)},
		{"E3", "becoming the engine's user", fixEngineUID, never(p.become)},
		{"E3", "changing the redirect rules", "drop NET_ADMIN; " + fixPrivileges, never(p.rules)},
		{"E3", "raw sockets", "drop NET_RAW; " + fixPrivileges, never(p.raw)},
		{"E3", "the mark of the engine's sockets", "drop NET_ADMIN and NET_RAW; " + fixPrivileges, never(p.mark)},
		{"E3", "the engine's process", fixProcess, never(p.process)},
	}
}

// dangerous are capabilities with which a user goes around the rules: those
// that injection drops, and those that are more than them.
func dangerous() map[uint]string {
	return map[uint]string{
		unix.CAP_CHOWN: "CHOWN", unix.CAP_SETGID: "SETGID", unix.CAP_SETUID: "SETUID", unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_NET_RAW: "NET_RAW",
		unix.CAP_SYS_PTRACE: "SYS_PTRACE", unix.CAP_SETFCAP: "SETFCAP", unix.CAP_SYS_ADMIN: "SYS_ADMIN", unix.CAP_SYS_MODULE: "SYS_MODULE",
		unix.CAP_SYS_RAWIO: "SYS_RAWIO", unix.CAP_DAC_READ_SEARCH: "DAC_READ_SEARCH", unix.CAP_BPF: "BPF", unix.CAP_PERFMON: "PERFMON",
	}
}

// privileges are what this process has, and what a program that it starts could
// get: where no_new_privs is set, nothing more.
func (p *patient) privileges() outcome {
	status, err := p.status()
	if err != nil {
		return open("%v", err)
	}
	return judgePrivileges(status)
}

func judgePrivileges(status map[string]string) outcome {
	for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"} {
		if set == "CapBnd" && status["NoNewPrivs"] == "1" {
			continue
		}
		bits, err := strconv.ParseUint(status[set], 16, 64)
		if err != nil {
			return open("%s is %q", set, status[set])
		}
		var names []string
		for bit, name := range dangerous() {
			if bits>>bit&1 == 1 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		switch {
		case len(names) == 0:
		case set == "CapBnd":
			return open("a program with the set-user-ID bit or with capabilities gives %s", strings.Join(names, ", "))
		default:
			return open("this process has %s", strings.Join(names, ", "))
		}
	}
	if status["NoNewPrivs"] != "1" {
		return open("a program with the set-user-ID bit makes whoever runs it its owner: privilege escalation is allowed")
	}
	return held("no capability leads out, and no program gives more")
}

// become tries to become the engine's user, in a thread that ends with the try.
func (p *patient) become() outcome {
	uid := p.EngineUID
	if uid == 0 {
		uid = 2_000_000_000 // of the range that engines' users are drawn from; nobody's here
	}
	if os.Getuid() == int(uid) {
		return open("this is the engine's user, %d", uid)
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is the runtime's no more
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			result <- errno
			return
		}
		result <- nil
	}()
	if err := <-result; err == nil {
		return open("this process can become user %d", uid)
	} else if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EINVAL) {
		return open("becoming user %d: %v", uid, err)
	}
	return held("this process cannot become user %d", uid)
}

// rules looks at the rules by the interface that changes them: one needs
// NET_ADMIN to do either.
func (p *patient) rules() outcome {
	_, err := redirect.List()
	switch {
	case err == nil:
		return open("this process may list the rules, and so change them")
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return held("the kernel refuses to talk about the rules")
	case errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EAFNOSUPPORT):
		return held("there is no netfilter to talk to")
	default:
		return open("%v", err)
	}
}

func (p *patient) raw() outcome {
	for _, s := range []struct {
		what             string
		family, protocol int
	}{{"IPv4", unix.AF_INET, unix.IPPROTO_RAW}, {"IPv6", unix.AF_INET6, unix.IPPROTO_RAW}, {"packet", unix.AF_PACKET, 0}} {
		fd, err := unix.Socket(s.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, s.protocol)
		if err == nil {
			_ = unix.Close(fd)
			return open("a raw %s socket can be opened", s.what)
		}
	}
	return held("the kernel refuses raw sockets")
}

// mark gives a socket the mark that the rules let out, and sends nothing by it.
func (p *patient) mark() outcome {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return open("a socket to try it on: %v", err)
	}
	defer func() { _ = unix.Close(fd) }()
	switch err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, passage.Mark); {
	case err == nil:
		return open("this process may mark its sockets as the engine's are marked, and what they send is let out")
	case errors.Is(err, syscall.EPERM):
		return held("the kernel refuses to mark a socket")
	default:
		return open("%v", err)
	}
}

// process looks for what the kernel shows of the engine's process to whoever
// may trace it.
func (p *patient) process() outcome {
	pids := p.engines()
	for _, pid := range pids {
		dir := filepath.Join("proc", strconv.Itoa(pid))
		for _, name := range []string{"environ", "mem", "maps"} {
			f, err := os.Open(p.path(filepath.Join(dir, name)))
			if err == nil {
				_, err = f.Read(make([]byte, 1)) // some are only checked then; of mem the first page is not mapped
				f.Close()
				if err == nil || name == "mem" {
					return open("/%s/%s can be read", dir, name)
				}
			}
		}
		if entries, err := os.ReadDir(p.path(filepath.Join(dir, "root"))); err == nil {
			return open("/%s/root can be read: %d entries", dir, len(entries))
		}
	}
	if len(pids) == 0 {
		return held("it is not in sight")
	}
	return held("%s in sight, and cannot be traced or read", plural(len(pids)))
}

func plural(n int) string {
	if n == 1 {
		return "1 process is"
	}
	return fmt.Sprintf("%d processes are", n)
}
