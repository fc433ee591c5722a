//go:build netns

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/enginetest/netns"
	"github.com/arpitcoder/aegrail-engine/internal/passage"
)

// mark gives a socket the engine's mark, as the test may.
func mark(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, passage.Mark) }

// markProgram tries to send to addresses by sockets with the engine's mark, by
// all the ways to one that there are without aegrail-init.
func markProgram(args []string) {
	for _, to := range args {
		var err error
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			return errors.Join(c.Control(func(fd uintptr) { err = mark(int(fd)) }), err)
		}}
		_, err = d.Dial("udp", to)
		say("set "+to, err)
		conn, err := net.ListenUDP("udp", nil)
		if err == nil {
			// The mark of one message (SO_MARK beside it).
			mark := make([]byte, unix.CmsgSpace(4))
			h := (*unix.Cmsghdr)(unsafe.Pointer(&mark[0]))
			h.Level, h.Type = unix.SOL_SOCKET, unix.SO_MARK
			h.SetLen(unix.CmsgLen(4))
			binary.NativeEndian.PutUint32(mark[unix.CmsgLen(0):], passage.Mark)
			_, _, err = conn.WriteMsgUDPAddrPort([]byte("marked"), mark, netip.MustParseAddrPort(to))
		}
		say("send "+to, err)
	}
	// With all capabilities over a namespace of its own, which the pod's is not.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "AEGRAIL_TEST_PROGRAM=set mark")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		say("in a user namespace", syscall.EPERM) // the kernel lets nobody have one here, or it was refused there
		return
	}
	fmt.Printf("in a user namespace: %s", out)
}

// setMarkProgram fails unless it may set the mark.
func setMarkProgram([]string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err == nil {
		err = mark(fd)
	}
	if err != nil {
		os.Exit(1)
	}
	fmt.Println("WORKED")
}

// The attack that this is for: an image that runs as the user that the engine
// has, which the pod's annotation and /proc/net/tcp name.
func TestE03TheEnginesUserIsHeldLikeAnyOther(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	c := netns.Container{UID: engineUID}
	want(t, run1(t, p.Pod, c, "tcp", "192.0.2.1:443", "[2001:db8::1]:443"), "192.0.2.1:443: engine, for 192.0.2.1:443", "[2001:db8::1]:443: engine, for [2001:db8::1]:443")
	want(t, run1(t, p.Pod, c, "udp", "192.0.2.1:443", "[2001:db8::1]:443", "10.77.0.1:53"), "192.0.2.1:443: EPERM", "[2001:db8::1]:443: EPERM", "10.77.0.1:53: resolver")
	want(t, run1(t, p.Pod, c, "tcp", "127.0.0.1:15020"), "127.0.0.1:15020: ECONNREFUSED")
	nothingLeft(t, p, capture)
}

func TestE03NobodyMarksASocket(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			want(t, run1(t, p.Pod, c, "mark", "192.0.2.1:443", "[2001:db8::1]:443"),
				"set 192.0.2.1:443: EPERM", "send 192.0.2.1:443: EPERM", "set [2001:db8::1]:443: EPERM", "send [2001:db8::1]:443: EPERM", "in a user namespace: EPERM")
		})
	}
	nothingLeft(t, p, capture)
	// What holds is the container's settings, and either capability is enough to be out.
	for _, caps := range []string{"-all,+net_admin", "-all,+net_raw"} {
		if out := run1(t, p.Pod, netns.Container{Caps: caps}, "set mark"); out != "WORKED\n" {
			t.Errorf("%s: %s", caps, out)
		}
	}
}

func TestE03AegrailInitMarksForTheEngineAlone(t *testing.T) {
	p := pod(t)
	for name, c := range agents() {
		if c.UID == engineUID {
			continue // what keeps its like out is the volume, which no other container has
		}
		t.Run(name, func(t *testing.T) {
			out := run1(t, p.Pod, c, "engine tcp", p.way, "192.0.2.1:443")
			if !strings.Contains(out, passage.Stranger.String()) {
				t.Error(out)
			}
		})
	}
	for _, uid := range []uint32{agentUID, engineUID} {
		// As in a container without the volume.
		out := run1(t, p.Pod, netns.Container{UID: uid}, "engine udp", "/no/such/socket", "192.0.2.1:443")
		if !strings.Contains(out, "no such file") || !strings.Contains(out, "nothing leaves without the mark") {
			t.Error(out)
		}
	}
	want(t, p.engine("tcp", "192.0.2.1:443"), "192.0.2.1:443: world")
}

func TestTheRulesStayWhileAegrailInitIsAway(t *testing.T) {
	p := pod(t)
	capture := p.Capture(t)
	p.stop()
	c := netns.Container{UID: agentUID}
	want(t, run1(t, p.Pod, c, "tcp", "192.0.2.1:443"), "192.0.2.1:443: engine, for 192.0.2.1:443")
	want(t, run1(t, p.Pod, c, "udp", "192.0.2.1:443"), "192.0.2.1:443: EPERM")
	if out := p.engine("tcp", "192.0.2.1:443"); !strings.Contains(out, "did not mark the socket") {
		t.Error(out)
	}
	p.serve()
	nothingLeft(t, p, capture)
	want(t, p.engine("tcp", "192.0.2.1:443"), "192.0.2.1:443: world")
}

// countArrivals counts what arrives in this namespace by TCP: marked or not.
func countArrivals(t *testing.T) *nftables.Table {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Error(err)
		return nil
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "arrivals"})
	chain := c.AddChain(&nftables.Chain{
		Name: "arrivals", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	for _, op := range []expr.CmpOp{expr.CmpOpEq, expr.CmpOpNeq} {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: make([]byte, 4)}, &expr.Counter{},
		}})
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	return table
}

// arrivals are the packets without a mark, and those with one.
func arrivals(t *testing.T, table *nftables.Table) (plain, marked uint64) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Error(err)
		return 0, 0
	}
	rules, err := c.GetRules(table, &nftables.Chain{Name: "arrivals", Table: table})
	if err != nil || len(rules) != 2 {
		t.Errorf("%d rules, %v", len(rules), err)
		return 0, 0
	}
	count := func(r *nftables.Rule) uint64 { return r.Exprs[2].(*expr.Counter).Packets }
	return count(rules[0]), count(rules[1])
}

// A packet carries its mark to the end of the pod's network and no further:
// what marks mean on the node is none of ours.
func TestTheMarkEndsWithThePod(t *testing.T) {
	p := pod(t)
	var table *nftables.Table
	p.Cluster.Do(func() { table = countArrivals(t) })
	want(t, p.engine("tcp", "192.0.2.1:443"), "192.0.2.1:443: world")
	p.Cluster.Do(func() {
		if plain, marked := arrivals(t, table); plain == 0 || marked != 0 {
			t.Errorf("%d packets arrived without the mark, and %d with it", plain, marked)
		}
	})
}
