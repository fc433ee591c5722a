//go:build netns

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
	p.way = filepath.Join(volume(t), "passage")
	p.flags = append([]string{"--engine-uid", strconv.Itoa(engineUID), "--passage", p.way}, flags...)
	p.serve()
	answer(t, p.Namespace, engineUID, "engine", "127.0.0.1:15001", "[::1]:15001")
	answer(t, p.Namespace, engineUID, "resolver", "127.0.0.1:15053", "[::1]:15053")
	answer(t, p.Namespace, engineUID, "engine's port", "[::]:15020", "127.0.0.1:15080")
	answer(t, p.Namespace, agentUID, "app", "[::]:8080")
	answer(t, p.Cluster, 0, "world", "[::]:7000", "[::]:443", "[::]:53")
	return p
}

// volume is a directory that every user may write to, as an emptyDir is.
func volume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil { //nolint:gosec // agents are other users
			t.Fatal(err)
		}
	}
	return dir
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

// as calls fn with a user for the sockets that it makes.
func as(uid int, fn func() int) int {
	before, _ := unix.SetfsuidRetUid(uid)
	defer func() { _, _ = unix.SetfsuidRetUid(before) }()
	return fn()
}
