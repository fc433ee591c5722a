//go:build netns

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
	"github.com/arpitcoder/aegrail-engine/internal/intake"
	"github.com/arpitcoder/aegrail-engine/internal/passage"
)

// engineUID is what the engine runs as in these tests, agentUID what an agent does.
const (
	engineUID = 2000000123
	agentUID  = 1000
)

// patience is how long is waited for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	netns.Programs(map[string]func([]string){
		"aegrail-init": func([]string) { main() },
		"tcp":          func(args []string) { tcpProgram(plain, args) },
		"udp":          func(args []string) { udpProgram(plain, fmt.Sprintf("from %d", os.Getuid()), args) },
		"engine tcp":   func(args []string) { tcpProgram(marked(args[0]), args[1:]) },
		"engine udp":   func(args []string) { udpProgram(marked(args[0]), engineAsks, args[1:]) },
		"mark":         markProgram,
		"set mark":     setMarkProgram,
		"sockets":      socketsProgram,
		"become":       becomeProgram,
		"change":       changeProgram,
	})
	os.Exit(m.Run())
}

// say prints the outcome of an attempt: an error's name, or that it worked.
func say(what string, err error) {
	var errno syscall.Errno
	switch {
	case err == nil:
		fmt.Println(what + ": WORKED")
	case errors.As(err, &errno):
		fmt.Printf("%s: %s\n", what, unix.ErrnoName(errno))
	default:
		fmt.Printf("%s: %v\n", what, err)
	}
}

// dial is a net.Dialer's DialContext.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

func plain(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// marked dials as the engine does.
func marked(path string) dial { return passage.NewClient(path).DialContext }

// tcpProgram dials each address and prints the line that whoever answers says.
func tcpProgram(dial dial, args []string) {
	for _, to := range args {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		conn, err := dial(ctx, "tcp", to)
		cancel()
		if err != nil {
			say(to, err)
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		line, err := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if err != nil {
			say(to, err)
			continue
		}
		fmt.Printf("%s: %s", to, line)
	}
}

// engineAsks is what the engine sends by UDP.
const engineAsks = "the engine asks"

// udpProgram sends a message to each address and prints what comes back.
func udpProgram(dial dial, message string, args []string) {
	for _, to := range args {
		conn, err := dial(context.Background(), "udp", to)
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, err = conn.Write([]byte(message))
		}
		if err != nil {
			say(to, err)
			continue
		}
		buf := make([]byte, 200)
		n, err := conn.Read(buf)
		conn.Close()
		if err != nil {
			say(to, err)
			continue
		}
		fmt.Printf("%s: %s", to, buf[:n])
	}
}

// socketsProgram sends by sockets that are neither TCP nor UDP.
func socketsProgram(args []string) {
	to4, to6 := netip.MustParseAddr(args[0]).As4(), netip.MustParseAddr(args[1]).As16()
	echo4, echo6 := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, []byte{128, 0, 0, 0, 0, 0, 0, 0}
	for _, s := range []struct {
		what                   string
		family, kind, protocol int
		to                     unix.Sockaddr
		data                   []byte
	}{
		{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: to4}, echo4},
		{"ping6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: to6}, echo6},
		{"raw icmp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: to4}, echo4},
		{"raw ip", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, &unix.SockaddrInet4{Addr: to4}, echo4},
		{"raw icmp6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: to6}, echo6},
		{"packet", unix.AF_PACKET, unix.SOCK_DGRAM, 0, nil, nil},
		{"udplite", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, &unix.SockaddrInet4{Addr: to4, Port: 7000}, echo4},
		{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, &unix.SockaddrInet4{Addr: to4, Port: 7000}, nil},
	} {
		fd, err := unix.Socket(s.family, s.kind, s.protocol)
		if err == nil && s.data != nil {
			err = unix.Sendto(fd, s.data, 0, s.to)
		} else if err == nil && s.to != nil {
			err = unix.Connect(fd, s.to)
		}
		_ = unix.Close(fd)
		say(s.what, err)
	}
}

// becomeProgram tries to become the user of its argument.
func becomeProgram(args []string) {
	uid, _ := strconv.Atoi(args[0])
	say("setresuid", syscall.Setresuid(uid, uid, uid))
	say("setresgid", syscall.Setresgid(uid, uid, uid))
	say("setfsuid", func() error {
		_, _ = unix.SetfsuidRetUid(uid)
		if now, _ := unix.SetfsuidRetUid(-1); now != uid {
			return syscall.EPERM
		}
		return nil
	}())
	name := filepath.Join(args[1], "owned")
	say("chown", func() error {
		err := os.WriteFile(name, nil, 0o600)
		if err == nil {
			err = os.Chown(name, uid, uid)
		}
		return err
	}())
	for _, path := range args[2:] {
		say("run "+path, syscall.Exec(path, []string{path, "-u"}, nil))
	}
}

// changeProgram tries to change the rules and the network.
func changeProgram([]string) {
	c, err := nftables.New()
	if err == nil {
		c.FlushRuleset()
		err = c.Flush()
	}
	say("nft flush ruleset", err)
	_, err = c.ListTables()
	say("nft list tables", err)
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"} {
		f, err := os.OpenFile("/proc/sys/"+path, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		say("sysctl "+path, err)
	}
	say("iptables", func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		_ = unix.Close(fd)
		return err
	}())
}

// answer says who to every connection and datagram at addr, as a user.
func answer(t *testing.T, n *netns.Namespace, uid int, who string, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		var ln net.Listener
		var packets net.PacketConn
		var err, perr error
		n.Do(func() {
			as(uid, func() int {
				ln, err = net.Listen("tcp", addr)
				packets, perr = net.ListenPacket("udp", addr)
				return 0
			})
		})
		if err := errors.Join(err, perr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close(); packets.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				word := who
				if dst, err := intake.OriginalDst(conn.(*net.TCPConn)); err == nil {
					word += ", for " + dst.String()
				}
				fmt.Fprintln(conn, word)
				conn.Close()
			}
		}()
		go func() {
			buf := make([]byte, 200)
			for {
				_, from, err := packets.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = packets.WriteTo([]byte(who+"\n"), from)
			}
		}()
	}
}

// held is a pod that aegrail-init holds, and where that is asked for a mark.
type held struct {
	*netns.Pod
	t     *testing.T
	way   string   // the passage
	flags []string // of serve and check
	stop  func()   // ends aegrail-init
}

// pod is a pod that aegrail-init holds, with what stands in for the engine, an
// app in it, and the world, which answers at every address.
func pod(t *testing.T, flags ...string) *held {
	t.Helper()
	p := &held{Pod: netns.NewPod(t), t: t}
	dir := t.TempDir()
	p.way = filepath.Join(dir, "passage")
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil { //nolint:gosec // as the volume is; and what the agents here have in sight
			t.Fatal(err)
		}
	}
	p.flags = append([]string{"--engine-uid", strconv.Itoa(engineUID), "--passage", p.way}, flags...)
	p.serve()
	answer(t, p.Namespace, engineUID, "engine", "127.0.0.1:15001", "[::1]:15001")
	answer(t, p.Namespace, engineUID, "resolver", "127.0.0.1:15053", "[::1]:15053")
	answer(t, p.Namespace, engineUID, "engine's port", "[::]:15020", "127.0.0.1:15080")
	answer(t, p.Namespace, agentUID, "app", "[::]:8080")
	answer(t, p.Cluster, 0, "world", "[::]:7000", "[::]:443", "[::]:53")
	return p
}

// serve starts aegrail-init and waits until it serves.
func (p *held) serve() {
	p.t.Helper()
	cmd := initContainer().Command(p.t, "aegrail-init", append([]string{"serve"}, p.flags...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	p.Do(func() { err = cmd.Start() })
	if err != nil {
		p.t.Fatal(err)
	}
	p.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	p.t.Cleanup(func() { p.stop() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if !strings.HasPrefix(line, "redirecting TCP to port 15001 and DNS to port 15053, and dropping the rest; marking the sockets of user 2000000123") {
		p.t.Fatalf("aegrail-init said %q, %v", line, err)
	}
}

// engine runs tcp or udp as the engine does, by marked sockets.
func (p *held) engine(network string, to ...string) string {
	p.t.Helper()
	return run1(p.t, p.Pod, netns.Container{UID: engineUID, Caps: "-all"}, "engine "+network, append([]string{p.way}, to...)...)
}

// initContainer is what the webhook makes of aegrail-init: root with NET_ADMIN alone.
func initContainer() netns.Container { return netns.Container{Caps: "-all,+net_admin"} }

// want compares what a program printed with the lines that it must print.
func want(t *testing.T, got string, lines ...string) {
	t.Helper()
	if got != strings.Join(lines, "\n")+"\n" {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(lines, "\n"))
	}
}

func run1(t *testing.T, p *netns.Pod, c netns.Container, name string, args ...string) string {
	t.Helper()
	out, code := p.Run(t, c, name, args...)
	if code != 0 {
		t.Errorf("%s %q ended with %d", name, args, code)
	}
	return out
}

// agents are who may run in an injected container.
func agents() map[string]netns.Container {
	return map[string]netns.Container{"a user": {UID: agentUID}, "root": {}, "nobody": {UID: 65534}, "the engine's user": {UID: engineUID}}
}

func TestTheKernelHasTheRulesOfAPod(t *testing.T) {
	golden, err := os.ReadFile("testdata/pod.txt")
	if err != nil {
		t.Fatal(err)
	}
	bare := netns.NewPod(t)
	if out, code := bare.Run(t, initContainer(), "aegrail-init", "dump"); code != 1 || !strings.Contains(out, "there are no rules here") {
		t.Errorf("dump without rules: %d %s", code, out)
	}
	flags := []string{"check", "--engine-uid", strconv.Itoa(engineUID), "--passage", "/no/such/socket", "--free", "10.77.0.2,fd77::2"}
	if out, code := bare.Run(t, initContainer(), "aegrail-init", flags...); code != 1 || !strings.Contains(out, "missing: table inet aegrail {") {
		t.Errorf("check without rules: %d %s", code, out)
	}
	p := pod(t, "--free", "10.77.0.2,fd77::2")
	for range 2 { // to serve twice is to make the rules once
		want(t, run1(t, p.Pod, initContainer(), "aegrail-init", "dump"), strings.TrimSuffix(string(golden), "\n"))
		want(t, run1(t, p.Pod, initContainer(), "aegrail-init", append([]string{"check"}, p.flags...)...), "the rules are as they should be, and the engine's sockets are marked")
		p.stop()
		p.serve()
	}
	if out, code := p.Run(t, initContainer(), "aegrail-init", append([]string{"check", "--dns-port", "53"}, p.flags...)...); code != 1 || !strings.Contains(out, "not ours: meta l4proto udp th dport 53 redirect to :15053") {
		t.Errorf("check for another port: %d %s", code, out)
	}
	if out, code := p.Run(t, initContainer(), "aegrail-init", append([]string{"check"}, append(p.flags, "--passage", "/no/such/socket")...)...); code != 1 || !strings.Contains(out, "the engine's sockets are not marked: asking at /no/such/socket") {
		t.Errorf("check where nobody serves: %d %s", code, out)
	}
}

func TestWithoutNetAdminTheFixIsNamed(t *testing.T) {
	p := netns.NewPod(t)
	for name, c := range map[string]netns.Container{"no capability": {}, "no root": {UID: 1000, Caps: "-all,+net_admin"}} {
		for _, command := range []string{"serve", "check"} {
			out, code := p.Run(t, c, "aegrail-init", command, "--engine-uid", "7", "--passage", "/no/such/socket")
			if code != 1 || !strings.Contains(out, "CAP_NET_ADMIN") || !strings.Contains(out, "add: [NET_ADMIN]") {
				t.Errorf("%s, %s: %d %s", name, command, code, out)
			}
		}
	}
}

func TestE01EveryUsersTCPLandsInTheEngine(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			want(t, run1(t, p.Pod, c, "tcp", "192.0.2.1:443", "[2001:db8::1]:443", "10.77.0.1:7000", "[fd77::1]:7000", "10.77.0.2:8080", "[fd77::2]:15001"),
				"192.0.2.1:443: engine, for 192.0.2.1:443", "[2001:db8::1]:443: engine, for [2001:db8::1]:443",
				"10.77.0.1:7000: engine, for 10.77.0.1:7000", "[fd77::1]:7000: engine, for [fd77::1]:7000",
				"10.77.0.2:8080: engine, for 10.77.0.2:8080", "[fd77::2]:15001: engine, for [fd77::2]:15001")
			want(t, run1(t, p.Pod, c, "tcp", "127.0.0.1:8080", "[::1]:8080"), "127.0.0.1:8080: app", "[::1]:8080: app")
		})
	}
	want(t, p.engine("tcp", "192.0.2.1:443", "[2001:db8::1]:443", "127.0.0.1:15020"),
		"192.0.2.1:443: world", "[2001:db8::1]:443: world", "127.0.0.1:15020: engine's port")
}

func TestE02WhatIsNeitherTCPNorDNSIsDropped(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			want(t, run1(t, p.Pod, c, "udp", "192.0.2.1:443", "[2001:db8::1]:443", "10.77.0.1:7000", "[fd77::1]:7000", "10.77.0.2:8080"),
				"192.0.2.1:443: EPERM", "[2001:db8::1]:443: EPERM", "10.77.0.1:7000: EPERM", "[fd77::1]:7000: EPERM", "10.77.0.2:8080: EPERM")
			want(t, run1(t, p.Pod, c, "udp", "127.0.0.1:8080", "[::1]:8080"), "127.0.0.1:8080: app", "[::1]:8080: app")
		})
	}
	want(t, p.engine("udp", "10.77.0.1:443"), "10.77.0.1:443: world")
	if left := capture.Until(t, engineAsks); len(left) > 0 {
		t.Errorf("left the pod: %q", left)
	}
}

func TestE02DNSGoesToTheResolverWhoeverIsAsked(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			servers := []string{"192.0.2.53:53", "[2001:db8::53]:53", "10.77.0.1:53", "127.0.0.1:53", "[::1]:53"}
			var udp, tcp []string
			for _, s := range servers {
				udp, tcp = append(udp, s+": resolver"), append(tcp, s+": resolver, for "+s)
			}
			want(t, run1(t, p.Pod, c, "udp", servers...), udp...)
			want(t, run1(t, p.Pod, c, "tcp", servers...), tcp...)
		})
	}
	want(t, p.engine("udp", "10.77.0.1:53"), "10.77.0.1:53: world")
}

func TestTheEngineIsAnsweredOnAPortThatAnAgentHasAskedFrom(t *testing.T) {
	p := pod(t)
	server := &unix.SockaddrInet4{Port: 53, Addr: p.Cluster4.As4()}
	own := &unix.SockaddrInet4{Port: 40053, Addr: p.Pod4.As4()}
	ask := func(engine bool) (got string) {
		p.Do(func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			defer unix.Close(fd)
			if engine {
				err = mark(fd)
			}
			wait := unix.NsecToTimeval(int64(patience))
			err = errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait), unix.Bind(fd, own), unix.Connect(fd, server))
			if _, werr := unix.Write(fd, []byte("question")); err != nil || werr != nil {
				t.Error(err, werr)
			}
			buf := make([]byte, 100)
			n, err := unix.Read(fd, buf)
			got = string(buf[:max(n, 0)])
			if err != nil {
				got = err.Error()
			}
		})
		return got
	}
	for range 2 { // and the other way round
		want(t, ask(false), "resolver")
		want(t, ask(true), "world")
	}
}

func TestE02OtherSocketsLeadNowhere(t *testing.T) {
	p := pod(t)
	p.Do(func() {
		// As runtimes have it: everybody may ping, so that the rules alone hold it.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o600); err != nil {
			t.Error(err)
		}
	})
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			capture := p.Capture(t)
			got := run1(t, p.Pod, c, "sockets", "192.0.2.1", "2001:db8::1")
			// The kernel does not say what became of an ICMPv6 message.
			want(t, strings.ReplaceAll(got, "EPROTONOSUPPORT", "EPERM"), "ping: EPERM", "ping6: WORKED", "raw icmp: EPERM", "raw ip: EPERM",
				"raw icmp6: EPERM", "packet: EPERM", "udplite: EPERM", "sctp: EPERM")
			if got := p.engine("udp", "10.77.0.1:7000"); got != "10.77.0.1:7000: world\n" {
				t.Error(got)
			}
			if left := capture.Until(t, engineAsks); len(left) > 0 {
				t.Errorf("left the pod: %q", left)
			}
		})
	}
}

func TestE03NoUserBecomesTheEngine(t *testing.T) {
	p := pod(t)
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil { //nolint:gosec // for the agents of this test
			t.Fatal(err)
		}
	}
	// A program of the engine's user that makes whoever runs it that user.
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	setuid := filepath.Join(dir, "setuid")
	if err := errors.Join(os.WriteFile(setuid, id, 0o700), os.Chown(setuid, engineUID, engineUID), os.Chmod(setuid, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for name, c := range agents() {
		if c.UID == engineUID {
			continue
		}
		t.Run(name, func(t *testing.T) {
			own := t.TempDir()
			_ = os.Chmod(own, 0o777) //nolint:gosec // likewise
			_ = os.Chmod(filepath.Dir(own), 0o777)
			want(t, run1(t, p.Pod, c, "become", strconv.Itoa(engineUID), own, setuid),
				"setresuid: EPERM", "setresgid: EPERM", "setfsuid: EPERM", "chown: EPERM", strconv.Itoa(int(c.UID)))
		})
	}
	// What holds is the container's settings, not the rules: without them it is so.
	c := netns.Container{UID: agentUID, Escalation: true}
	want(t, run1(t, p.Pod, c, "become", strconv.Itoa(engineUID), dir, setuid), "setresuid: EPERM", "setresgid: EPERM", "setfsuid: EPERM", "chown: EPERM", strconv.Itoa(engineUID))
	c = netns.Container{Caps: "-all,+setuid,+setgid"}
	if out := run1(t, p.Pod, c, "become", strconv.Itoa(engineUID), dir); !strings.HasPrefix(out, "setresuid: WORKED\n") {
		t.Errorf("root with SETUID: %s", out)
	}
}

// halfOpen leaves the kernel of the pod with a connection of the engine's that
// conntrack takes for open and that has no socket at either end: what there is
// for minutes where a server that has been closed to does not close. It returns
// its two ends.
func halfOpen(t *testing.T, p *held) (from, to *unix.SockaddrInet4) {
	t.Helper()
	from, to = &unix.SockaddrInet4{Port: 40001, Addr: p.Pod4.As4()}, &unix.SockaddrInet4{Port: 7100, Addr: p.Cluster4.As4()}
	var err error
	var ln, client, server int
	silently := func(fd int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1), unix.Close(fd))
	}
	p.Cluster.Do(func() {
		ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		err = errors.Join(err, unix.Bind(ln, to), unix.Listen(ln, 1))
	})
	p.Do(func() {
		var serr error
		client, serr = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		err = errors.Join(err, serr, mark(client), unix.Bind(client, from), unix.Connect(client, to))
	})
	p.Cluster.Do(func() {
		var aerr error
		server, _, aerr = unix.Accept(ln)
		err = errors.Join(err, aerr, silently(server))
	})
	p.Do(func() { err = errors.Join(err, silently(client)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(ln) })
	return from, to
}

// as calls fn with a user for the sockets that it makes.
func as(uid int, fn func() int) int {
	before, _ := unix.SetfsuidRetUid(uid)
	defer func() { _, _ = unix.SetfsuidRetUid(before) }()
	return fn()
}

func TestE03NobodyTakesAConnectionOverThatTheEngineHasLeft(t *testing.T) {
	p := pod(t)
	from, to := halfOpen(t, p)
	capture := p.Capture(t)
	p.Do(func() {
		fd := as(agentUID, func() int {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			return fd
		})
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, from); err != nil {
			t.Error(err)
		}
		if err := unix.Connect(fd, to); err == nil {
			t.Error("connected at once")
		}
	})
	want(t, p.engine("udp", "10.77.0.1:7000"), "10.77.0.1:7000: world")
	if left := capture.Until(t, engineAsks); len(left) > 0 {
		t.Errorf("left the pod: %q", left)
	}
}

func TestE03NobodyChangesTheRules(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			got := run1(t, p.Pod, c, "change")
			if !strings.HasPrefix(got, "nft flush ruleset: EPERM\nnft list tables: EPERM\n") || !strings.HasSuffix(got, "iptables: EPERM\n") {
				t.Error(got)
			}
			if out, code := p.Run(t, c, "aegrail-init", "serve", "--engine-uid", strconv.Itoa(int(c.UID)+1), "--passage", filepath.Join(t.TempDir(), "passage")); code != 1 || !strings.Contains(out, "operation not permitted") {
				t.Errorf("aegrail-init: %d %s", code, out)
			}
		})
	}
	run1(t, p.Pod, initContainer(), "aegrail-init", append([]string{"check"}, p.flags...)...)
}

func TestE04TheEnginesPortsAreClosedToAgents(t *testing.T) {
	p := pod(t, "--free", "10.77.0.2,fd77::2") // with the pod's own addresses free, which makes it harder
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			addrs := []string{"127.0.0.1:15020", "[::1]:15020", "10.77.0.2:15020", "[fd77::2]:15020", "127.0.0.1:15080"}
			var refused, dropped []string
			for _, a := range addrs {
				refused, dropped = append(refused, a+": ECONNREFUSED"), append(dropped, a+": EPERM")
			}
			want(t, run1(t, p.Pod, c, "tcp", addrs...), refused...)
			want(t, run1(t, p.Pod, c, "udp", addrs...), dropped...)
			// The ports of redirection are open, and by hand there is no destination:
			// the engine refuses that and records it.
			want(t, run1(t, p.Pod, c, "tcp", "127.0.0.1:15001", "[::1]:15001"), "127.0.0.1:15001: engine", "[::1]:15001: engine")
			want(t, run1(t, p.Pod, c, "tcp", "10.77.0.2:8080", "[fd77::2]:8080"), "10.77.0.2:8080: app", "[fd77::2]:8080: app")
		})
	}
}

func TestWhoConnectsToThePodGetsAnAnswer(t *testing.T) {
	p := pod(t)
	p.Cluster.Do(func() {
		for to, word := range map[string]string{"10.77.0.2:8080": "app\n", "[fd77::2]:8080": "app\n", "10.77.0.2:15020": "engine's port\n"} {
			for _, network := range []string{"tcp", "udp"} {
				conn, err := net.DialTimeout(network, to, patience)
				if err != nil {
					t.Errorf("%s %s: %v", network, to, err)
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = conn.Write([]byte("?"))
				if line, err := bufio.NewReader(conn).ReadString('\n'); line != word {
					t.Errorf("%s %s: %q, %v", network, to, line, err)
				}
				conn.Close()
			}
		}
		// What is for redirected connections is on loopback alone.
		if conn, err := net.DialTimeout("tcp", "10.77.0.2:15001", patience); err == nil {
			conn.Close()
			t.Error("the transparent port is open to the cluster")
		}
	})
}
